"""Which addresses and URLs a webhook may have."""

from __future__ import annotations

import pytest

from pipeline_platform.alerts.targets import TargetError, find_target, is_public

CLOSED = (
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.9.9.9"),
    *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1"),
    *("192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.1.2.3"),
    *("240.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
    *("::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1"),
    *("2002:7f00:1::", "3fff::1", "fc00::1", "fd12::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1"),
    *("nonsense",),
)
PUBLIC = (
    *("1.1.1.1", "8.8.8.8", "162.159.128.233", "172.32.0.1", "100.128.0.1", "192.0.1.1", "2606:4700::1111"),
    *("2a00:1450::8a", "::ffff:8.8.8.8"),
)


@pytest.mark.parametrize("address", CLOSED)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://hooks.test/x", "file:///etc/passwd", "gopher://hooks.test/", "hooks.test/x", "//hooks.test/x", ""),
        *("http://", "https:///x", "http://user@hooks.test/", "http://u:p@hooks.test/", "http://hooks.test:0x50/"),
        *("http://hooks.test:99999/", "http://hooks.test\\@10.0.0.1/", "http://hooks.test/a b", "http://hööks.test/"),
        *("http://hooks.test/\r\nX: y", "http://[::1", "http://hooks.test/" + "a" * 3000, "HTTP:hooks.test"),
    ],
)
def test_urls_that_are_refused_before_any_name_is_asked_for(url: str) -> None:
    with pytest.raises(TargetError) as error:
        find_target(url, allow_private=True, resolve=_never)
    assert "aaaa" not in str(error.value)


def _never(host: str, port: int) -> list[str]:
    raise AssertionError("asked for a name")


def test_one_private_address_among_public_ones_is_enough() -> None:
    with pytest.raises(TargetError, match=r"10\.0\.0\.1, which is not a public address"):
        find_target("https://hooks.test/x", allow_private=False, resolve=lambda *_: ["8.8.8.8", "10.0.0.1"])


def test_the_target_is_the_address_and_the_host_stays_the_name() -> None:
    target = find_target("https://Hooks.test/a/b?c=d#e", allow_private=False, resolve=lambda *_: ["2606:4700::1111"])
    assert target.url(*target.addresses) == "https://[2606:4700::1111]:443/a/b?c=d"
    assert (target.host, target.host_header) == ("hooks.test", "hooks.test")
    other = find_target("http://hooks.test:8080", allow_private=True, resolve=lambda *_: ["10.0.0.1"])
    assert (other.url(*other.addresses), other.host_header) == ("http://10.0.0.1:8080/", "hooks.test:8080")


def test_a_name_without_addresses_is_not_found() -> None:
    with pytest.raises(OSError, match="has no address"):
        find_target("https://hooks.test/x", allow_private=True, resolve=lambda *_: [])
