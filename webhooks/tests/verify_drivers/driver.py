import base64
import sys

from genuine import genuine

NAMES = ("webhook-id", "webhook-timestamp", "webhook-signature")
for line in sys.stdin:
    secret, *shown, body = line.rstrip("\n").split("\t")
    headers = {name: base64.b64decode(value).decode() for name, value in zip(NAMES, shown, strict=True) if value != "-"}
    print(str(genuine(secret, headers, base64.b64decode(body))).lower())
