"""The status page and its headers. One file; what it may load is what stands in it."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final

_SCRIPT: Final = re.compile(r"<script>(.*?)</script>", re.S)
_STYLE: Final = re.compile(r"<style>(.*?)</style>", re.S)


def _hashes(pattern: re.Pattern[str], html: str) -> str:
    """CSP sources: the SHA-256 of each such element's text."""
    digests = [hashlib.sha256(text.encode()).digest() for text in pattern.findall(html)]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


class Page:
    """Octets and headers: no script but the page's own, no handler in an attribute."""

    def __init__(self, html: str) -> None:
        self.body: Final = html.encode()
        self.headers: Final = {
            "Content-Security-Policy": (
                "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; "
                f"style-src {_hashes(_STYLE, html)}; script-src {_hashes(_SCRIPT, html)}; "
                "form-action 'none'; frame-ancestors 'none'"
            ),
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
            "Cache-Control": "no-cache",
        }
