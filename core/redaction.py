"""Takes secrets out of what people and logs see."""

from __future__ import annotations

import re

MASK = "…"

#: A quick look for anything the patterns below could change: most log lines end here.
_SUSPICIOUS = re.compile(
    r"(?i)wk_live_|whsec_|auth|token|cookie|secret|password|signature|api[-_]?key|eyJ|://[^/\s]*@|/join/"
)

#: Header names, and keys of JSON, forms and query strings, whose values are secrets.
_NAMES = (
    r"(?:proxy-)?authorization|(?:set-)?cookie|x-webio-token|webhook-signature|x-api-key|api[-_]?key"
    r"|(?:access_|refresh_|csrfmiddleware)?token|(?:client_)?secret|secret_?key|password"
)

_PATTERNS = (
    # API keys keep their prefix, so that a leaked one can be found and revoked.
    (re.compile(r"(wk_live_[A-Za-z0-9]{12})_[A-Za-z0-9]+"), rf"\1_{MASK}"),
    (re.compile(r"whsec_[A-Za-z0-9+/=_-]+"), f"whsec_{MASK}"),
    # JSON Web Tokens, the x-webio-token among them.
    (re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), f"eyJ{MASK}"),
    # Links that let somebody in: an invitation, a password reset.
    (re.compile(r"(/join/|/password/reset/key/)[^/\s?&\"'<>]+"), rf"\1{MASK}"),
    # {"password": "…"} and its Python form, quotes escaped or not.
    (re.compile(rf"""(?i)(['"](?:{_NAMES})\\?['"]\s*[:=,]\s*b?\\?)(['"])(?:\\.|(?!\2)[^\\])*"""), rf"\1\2{MASK}"),
    # Header lines: the value is the rest of the line.
    (re.compile(rf"(?im)(\b(?:{_NAMES}):[ \t]*)(?![\"'\s])[^\r\n\"']+"), rf"\1{MASK}"),
    # Query strings and key=value.
    (re.compile(rf"(?i)(\b(?:{_NAMES})=)(?![\"'])[^&\s\"';,]+"), rf"\1{MASK}"),
    # Passwords in URLs, also of databases and brokers.
    (re.compile(r"(://[^/\s:@]*):[^/\s@]+@"), rf"\1:{MASK}@"),
)


def redact(text: str) -> str:
    """`text` with everything that looks like a secret masked. Twice is as once."""
    if not _SUSPICIOUS.search(text):
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
