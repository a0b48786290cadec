"""Takes secrets out of what people and logs see."""

from __future__ import annotations

import re

#: API keys keep their prefix, so that a leaked one can be found and revoked.
_PATTERNS = (
    (re.compile(r"(wk_live_[A-Za-z0-9]{12})_[A-Za-z0-9]+"), r"\1_…"),
    (re.compile(r"whsec_[A-Za-z0-9+/=_-]+"), "whsec_…"),
    (re.compile(r"(?i)(authorization|x-webio-token|cookie|webhook-signature)(['\"]?\s*[:=]\s*)[^\r\n,]+"), r"\1\2…"),
    (re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"), "eyJ…"),
    # Links that let somebody in: an invitation, a password reset.
    (re.compile(r"(/join/|/password/reset/key/)[^/\s?&]+"), r"\1…"),
    (re.compile(r"(://[^/\s:@]+):[^/\s@]+@"), r"\1:…@"),
)


def redact(text: str) -> str:
    """`text` with everything that looks like one of our secrets masked."""
    for pattern, mask in _PATTERNS:
        text = pattern.sub(mask, text)
    return text
