"""API keys: how they are made, recognised and checked.

A key is `wk_live_<prefix>_<secret>`. The prefix (12 characters) finds the row, the secret (256 random bits) is
compared as SHA-256: a slow hash would protect nothing here, since such a secret cannot be guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from datetime import datetime, timedelta

from core.clock import now
from organisations.models import ApiKey

ALPHABET = string.ascii_letters + string.digits
PREFIX_LENGTH = 12
SECRET_LENGTH = 43
KEY = re.compile(rf"wk_live_([A-Za-z0-9]{{{PREFIX_LENGTH}}})_([A-Za-z0-9]{{{SECRET_LENGTH}}})")
#: A key's last use is written at most this often.
LAST_USED_EVERY = timedelta(minutes=1)


def new_key() -> tuple[str, str, str]:
    """(whole key, prefix, hash to store)."""
    prefix = "".join(secrets.choice(ALPHABET) for _ in range(PREFIX_LENGTH))
    secret = "".join(secrets.choice(ALPHABET) for _ in range(SECRET_LENGTH))
    key = f"wk_live_{prefix}_{secret}"
    return key, prefix, hash_key(key)


def hash_key(key: str) -> str:
    """What is stored of a key: its SHA-256 in hex."""
    return hashlib.sha256(key.encode()).hexdigest()


def find_key(presented: str) -> ApiKey | None:
    """The usable key that `presented` is, with its organisation, or None: malformed, unknown, expired, revoked."""
    match = KEY.fullmatch(presented)
    if match is None:
        return None
    row = ApiKey.objects.select_related("organisation").filter(prefix=match[1]).first()
    if row is None or not hmac.compare_digest(row.key_hash, hash_key(presented)):
        return None
    return row if row.usable_at(now()) else None


def note_use(row: ApiKey, moment: datetime) -> None:
    """Remember that the key was used, with a write at most once a minute."""
    if row.last_used_at is None or moment - row.last_used_at >= LAST_USED_EVERY:
        ApiKey.objects.filter(pk=row.pk).update(last_used_at=moment)
