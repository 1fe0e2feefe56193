"""Which names the gateway answers to: a page whose own name leads here (DNS rebinding) is not answered."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address

_KNOWN_MOST = 1000
_PORT = re.compile(r":\d{1,5}\Z")


class AllowedHosts:
    """`names` may be `*` for all, or begin with a dot for all names below. IP addresses and localhost always may.

    An address is no name that somebody else could let lead here: a browser counts what comes by it as our own page.
    """

    def __init__(self, names: Iterable[str]) -> None:
        wanted = {_name(text) for text in names if text}
        self._any = "*" in wanted
        self._names = frozenset(wanted | {"localhost"})
        self._below = tuple(name for name in wanted if name.startswith("."))
        self._known: dict[bytes, bool] = {}

    def allow(self, host: bytes) -> bool:
        """Whether a Host header is one of ours, with any port."""
        if self._any:
            return True
        known = self._known.get(host)
        if known is None:
            known = self._find(host)
            if len(self._known) < _KNOWN_MOST:
                self._known[host] = known
        return known

    def _find(self, host: bytes) -> bool:
        if len(host) > 300 or not host.isascii():
            return False
        name = _name(host.decode())
        try:
            ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return name in self._names or any(name.endswith(end) for end in self._below)
        return True


def _name(text: str) -> str:
    return _PORT.sub("", text.strip().lower()).rstrip(".")
