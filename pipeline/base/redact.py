"""Passwords in URLs and hub tokens, kept out of every line that is printed or written."""

from __future__ import annotations

import re

PASSWORD = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^\s/?#'\"@]*(?:@[^\s/?#'\"@]*)*@", re.IGNORECASE)
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")


def redacted(text: str) -> str:
    """``text`` with user and password of its URLs, and Hugging Face tokens, as ``***``."""
    return TOKEN.sub("***", PASSWORD.sub(r"\g<scheme>***@", text))
