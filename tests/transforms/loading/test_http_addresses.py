"""The addresses that `http_fetch` connects to, by the address alone and on real connections."""

import multiprocessing
import socket
from typing import Any

import pytest

from beamlabel.transforms.loading.http_fetch import HttpFetch
from beamlabel.transforms.loading.http_steps import get
from beamlabel.transforms.loading.web import addresses
from beamlabel.transforms.loading.web.addresses import is_public
from beamlabel.transforms.records import ImageError, Reason
from support import http_site
from support.http_site import BODY, Site, reply


def fetch(url: str, **options: Any) -> bytes:
    return get(url, **{"max_bytes": 1 << 20, "deadline": 10.0, **options})[0]


def refusal(url: str) -> ImageError:
    return http_site.refusal(fetch, url)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "93.184.216.34",
        "2606:4700:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ],
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "127.8.8.8",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "2001:db8::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%1",
        "fec0::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ],
)
def test_loopback_is_refused_however_it_is_written(site: Site, host: str) -> None:
    site.on("/a.jpg", reply())
    error = refusal(f"http://{host}:{site.server.server_port}/a.jpg")
    assert error.reason is Reason.NOT_ALLOWED
    assert "--allow_private_hosts" in error.detail
    assert not site.requests


def test_private_hosts_can_be_allowed(site: Site) -> None:
    url = site.on("/a.jpg", reply())
    assert fetch(url, allow_private_hosts=True) == BODY
    assert refusal(url).reason is Reason.NOT_ALLOWED, "an open connection of the other kind is not used"
    assert site.count("/a.jpg") == 1


def _resolver(answers: dict[str, list[list[str]]]) -> Any:
    """A ``getaddrinfo`` for some names, with the addresses of the first, second, … call."""
    real = socket.getaddrinfo

    def resolve(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        if host not in answers:
            return real(host, port, *args, **kwargs)
        found = answers[host].pop(0)
        return [entry for address in found for entry in real(address, port, type=socket.SOCK_STREAM)]

    return resolve


def test_a_redirect_to_a_private_host_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """One loopback address stands for the public host, another for the private one."""
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1")
    site.on("/secret.jpg", reply())
    inside = f"http://127.0.0.2:{site.server.server_port}/secret.jpg"
    error = refusal(site.on("/a.jpg", reply(302, b"", Location=inside)))
    assert error.reason is Reason.NOT_ALLOWED
    assert "127.0.0.2" in error.detail
    assert site.count("/a.jpg") == 1
    assert site.count("/secret.jpg") == 0


def test_the_address_that_was_checked_is_the_one_connected_to(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with a public address first and a private one later is resolved only once."""
    answers = {"rebind.test": [["127.0.0.1"], ["127.0.0.2"]]}
    monkeypatch.setattr(socket, "getaddrinfo", _resolver(answers))
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1")
    site.on("/a.jpg", reply())
    assert fetch(f"http://rebind.test:{site.server.server_port}/a.jpg") == BODY
    assert answers == {"rebind.test": [["127.0.0.2"]]}
    assert site.requests[0][1]["Host"] == f"rebind.test:{site.server.server_port}"


def test_addresses_that_libcurl_connects_to_are_checked_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The addresses were not checked before, as if libcurl had found others."""
    monkeypatch.setattr(HttpFetch, "_resolved", lambda *_: "")
    site.on("/a.jpg", reply())
    for host in ("127.0.0.1", "localhost", "0x7f.1"):
        error = refusal(f"http://{host}:{site.server.server_port}/a.jpg")
        assert error.reason is Reason.NOT_ALLOWED
    assert not site.requests


def test_one_private_address_among_public_ones_is_enough(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _resolver({"mixed.test": [["127.0.0.1", "127.0.0.2"]]}))
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1")
    site.on("/a.jpg", reply())
    assert refusal(f"http://mixed.test:{site.server.server_port}/a.jpg").reason is Reason.NOT_ALLOWED
    assert not site.requests


def test_the_next_address_is_tried(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server listens at the name's first address."""
    monkeypatch.setattr(socket, "getaddrinfo", _resolver({"two.test": [["127.0.0.3", "127.0.0.1"]]}))
    monkeypatch.setattr(addresses, "is_public", lambda address: True)
    site.on("/a.jpg", reply())
    assert fetch(f"http://two.test:{site.server.server_port}/a.jpg") == BODY


@pytest.mark.parametrize("allowed", [True, False])
def test_a_name_that_does_not_exist_is_looked_up_once(monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    looked_up = []

    def unknown(host: str, *args: Any, **kwargs: Any) -> Any:
        looked_up.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ImageError, match="Name or service not known") as caught:
        fetch("http://nowhere.test/a.jpg", allow_private_hosts=allowed)
    assert caught.value.reason is Reason.FETCH_ERROR
    assert looked_up == ["nowhere.test"]


def test_the_environments_proxy_is_not_used(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy resolves names itself, so no address could be checked."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, site.base)
    error = refusal("http://10.0.0.1/a.jpg")
    assert error.reason is Reason.NOT_ALLOWED
    assert not site.requests


def test_a_forked_process_makes_its_own_connections(site: Site) -> None:
    url = site.on("/a.jpg", reply())
    fetch(url, allow_private_hosts=True)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(fetch, (url,), {"allow_private_hosts": True}) == BODY
    fetch(url, allow_private_hosts=True)
    parent, child, parent_again = (client for _, _, client in site.requests)
    assert child != parent == parent_again
