"""Takes out of a text what looks like a secret, before it leaves the house. A safety net: nobody should put one in."""

from __future__ import annotations

import re

HIDDEN = "***"
_NAMED = r"(?:passw(?:or)?d|passwd|pwd|secret|token|api[_-]?key|apikey|authorization|credential|private[_-]?key)"
# What is found, and what takes its place. A text may be cut anywhere: a closing quote is not waited for.
_PATTERNS = (
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@\"']+@", re.IGNORECASE), rf"\1{HIDDEN}@"),
    (re.compile(r"(/api/(?:v\d+/)?webhooks/\d+/)[\w-]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"(hooks\.slack\.com/services/)\S+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"\bpp_([0-9a-f]{8})_[\w-]+"), rf"pp_\1_{HIDDEN}"),
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (
        re.compile(rf"(\"[^\"]*{_NAMED}[^\"]*\"\s*:\s*)(?:\"(?:[^\"\\]|\\.)*(?:\"|\Z)|[^\s,}}\]]+)", re.IGNORECASE),
        rf'\1"{HIDDEN}"',
    ),
    (re.compile(rf"\b(\w*{_NAMED}\w*\s*=\s*)(?!\*)[^\s&;,\"']+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), HIDDEN),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), HIDDEN),  # a JSON web token
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), HIDDEN),
)


def without_secrets(text: str) -> str:
    """`text` with passwords, tokens and keys hidden."""
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text
