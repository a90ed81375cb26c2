"""Which addresses are HTTP, and which are this machine's and a cluster's own: a proxy could not reach them, and must not see them."""

import ipaddress
from urllib.parse import urlsplit

_CLUSTER_SUFFIXES = (".svc", ".local", ".localhost")


def is_http(address: str) -> bool:
    """Say whether a text is an address that begins with http:// or https://."""
    try:
        return address.partition("://")[1] != "" and urlsplit(address).scheme in {"http", "https"}
    except ValueError:  # [ without ]
        return False


def is_nearby(address: str) -> bool:
    """Say whether an address, as http://HOST:PORT, has a loopback or private IP address, or a name as clusters give them."""
    host = (urlsplit(address).hostname or "").rstrip(".")
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_CLUSTER_SUFFIXES)
    return ip.is_private or ip.is_loopback or ip.is_link_local


def requests_proxies(address: str) -> dict[str, str]:
    """Return `proxies` for a call of the library requests: those of the environment, or none for an address nearby."""
    return {"no_proxy": "*"} if is_nearby(address) else {}
