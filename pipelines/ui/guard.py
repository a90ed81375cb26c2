"""What keeps other sites' pages away from a server on this machine: checks of Host and Origin, and the headers of every answer."""

import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; img-src 'self' data:; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send `Origin: null` with our own forms
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Scripts come from files of ours only; styles stand in the pages."""


def problem(method: str, headers: Mapping[str, str], names: Collection[str]) -> str:
    """Why a request is refused, in one line; "" where it is not.

    The Host header must be an IP address, localhost or one of `names`: a name that someone has made to lead to this machine (DNS
    rebinding) is none of these. What changes something must come from a page of the same host (cross-site request forgery); browsers
    say that in Origin.
    """
    host = headers.get("host", "")
    if not _is_ours(host, names):
        return f"the host {host[:100]!r} is not served here; add it by --host if it is this machine's name"
    if method not in {"GET", "HEAD"} and _netloc(headers.get("origin", "")) != host:
        return "this was not sent by a page of this server; label on its own page, or with penstock review label"
    return ""


def _netloc(address: str) -> str:
    try:
        return urlsplit(address).netloc
    except ValueError:
        return ""


def _is_ours(host: str, names: Collection[str]) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name in {"localhost", *(other.lower() for other in names)}:
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
