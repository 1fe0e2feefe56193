"""How many connections each client address has open in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network


class ConnectionCounts:
    """Counts up to `most` an address; `unbounded` are networks that speak for many, such as proxies."""

    def __init__(self, most: int, unbounded: Iterable[str] = ()) -> None:
        self._most = most
        self._unbounded = tuple(ip_network(text, strict=False) for text in unbounded)
        self._open: Counter[str] = Counter()

    def enter(self, host: str) -> str | None:
        """The name to `leave` under, or None when the address has as many as it may."""
        name = _client(host)
        if self._open[name] >= self._most and not self._is_unbounded(host):
            return None
        self._open[name] += 1
        return name

    def leave(self, name: str) -> None:
        """One connection less."""
        self._open[name] -= 1
        if self._open[name] <= 0:
            del self._open[name]

    def __len__(self) -> int:
        return self._open.total()

    def _is_unbounded(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._unbounded if network.version == address.version)


@lru_cache(maxsize=4096)
def _client(host: str) -> str:
    """The address; of IPv6 its /64, which one client usually has whole."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(ip_network(f"{address}/64", strict=False))
    return str(address)
