import base64
import hashlib
import hmac
import re
import time


def genuine(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """`secret` is whsec_…, `headers` go by lower-case name, `body` is raw as it came."""
    message_id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    if not message_id or not re.fullmatch("[0-9]{1,12}", timestamp):
        return False
    if abs(time.time() - int(timestamp)) > 300:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    # While a secret rotates there are two signatures: one of them must match.
    shown = headers.get("webhook-signature", "").encode().split(b" ")
    return any(hmac.compare_digest(expected, one) for one in shown)
