"""The addresses of hosts, and a check that they belong to the public internet."""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
import threading
import time

# As long as libcurl caches the addresses of a name.
_REMEMBERED_SECONDS = 60.0
_REMEMBERED_NAMES = 10_000
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address

_lock = threading.Lock()
_known: dict[tuple[str, int], tuple[float, tuple[str, ...]]] = {}


def addresses(host: str, port: int) -> tuple[str, ...]:
    """The IP addresses of a host from the system's resolver, at least one; cached for a minute.

    Raises:
      OSError: The resolver failed, see ``socket.gaierror``.
      UnicodeError: The host name is invalid.
    """
    now = time.monotonic()
    found = _known.get((host, port))
    if found is not None and now < found[0]:
        return found[1]
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    result = tuple(dict.fromkeys(str(entry[4][0]) for entry in entries))
    if not result:
        raise OSError(f"{host} has no address")
    with _lock:
        if len(_known) >= _REMEMBERED_NAMES:
            _known.clear()
        _known[host, port] = now + _REMEMBERED_SECONDS, result
    return result


def forget(host: str, port: int) -> None:
    """Drops the cached addresses of a host, at which no server answers."""
    with _lock:
        _known.pop((host, port), None)


@functools.lru_cache(maxsize=4096)
def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet.

    It does not if it is private, loopback, link-local (as the clouds' metadata servers are), multicast or reserved.
    IPv4 addresses inside IPv6 ones count as IPv4 addresses: mapped (``::ffff:0:0/96``), 6to4 (``2002::/16``) and NAT64
    (``64:ff9b::/96``, RFC 6052).
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.is_site_local:  # deprecated, but global in ipaddress
            return False
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            ip = inner
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_link_local)


def _forget_lock() -> None:
    # A thread that does not exist in a forked child may hold the lock.
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_lock)
