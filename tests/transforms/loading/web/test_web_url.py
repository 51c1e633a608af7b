"""The parts of URLs, and the target of a ``Location``."""

import pytest

from beamlabel.transforms.loading.web.web_url import parsed, redirected


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://a.test", "http://a.test/"),
        ("HTTP://A.Test:80/X", "http://a.test/X"),
        ("https://a.test:8443/x?y#z", "https://a.test:8443/x?y"),
        ("http://a.test/ü b.jpg?w= &c=ü", "http://a.test/%C3%BC%20b.jpg?w=%20&c=%C3%BC"),
        ("http://a.test/%C3%BC%2F", "http://a.test/%C3%BC%2F"),
        ("http://a.test/100%.jpg", "http://a.test/100%25.jpg"),
        ("http://a.test/a\tb\nc", "http://a.test/a%09b%0Ac"),
        ("http://a.test/[1]{2}|", "http://a.test/%5B1%5D%7B2%7D%7C"),
        ("http://[::1]:81/a", "http://[::1]:81/a"),
        ("http://bücher.test/a", "http://xn--bcher-kva.test/a"),
        ("http://BÜCHER.test/a", "http://xn--bcher-kva.test/a"),
        ("http://under_score.test./a", "http://under_score.test./a"),
        ("http://user:pass@a.test/x", "http://a.test/x"),
        ("http://a.test?x=1", "http://a.test/?x=1"),
    ],
)
def test_as_it_is_sent(url: str, sent: str) -> None:
    assert parsed(url).text == sent
    assert parsed(parsed(url).text) == parsed(url)._replace(userinfo=None)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.jpg",
        "ftp://a.test/",
        "http://",
        "http:///a",
        "http://[::1/a",
        "http://[fe80::1%25eth0]/a",
        "http://a.test:99999/",
        "http://a.test:0/",
        "http://a.test:x/",
        "http://a b/",
        "http://a%2etest/",
        "http://a\\b/",
        "http://a\r\nHost: b/",
        "http://.a/",
        "http://a.test/\ud800",
    ],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ValueError):
        parsed(url)


def test_userinfo_is_decoded() -> None:
    assert parsed("http://us%3Aer:p%40ss@a.test/").userinfo == "us:er:p@ss"
    assert parsed("http://a.test/@b").userinfo is None


@pytest.mark.parametrize(
    ("location", "target"),
    [
        (b"/x", "http://a.test/x"),
        (b"y.jpg", "http://a.test/b/y.jpg"),
        (b"../y.jpg", "http://a.test/y.jpg"),
        (b"?q", "http://a.test/b/c?q"),
        (b"//c.test/x", "http://c.test/x"),
        (b"https://c.test/x", "https://c.test/x"),
        ("/ü/漢 字.jpg".encode(), "http://a.test/%C3%BC/%E6%BC%A2%20%E5%AD%97.jpg"),
        (b"/\xfc.jpg", "http://a.test/%FC.jpg"),
        (b"  /x  ", "http://a.test/x"),
        ("http://bücher.test/ü".encode(), "http://xn--bcher-kva.test/%C3%BC"),
    ],
)
def test_targets_of_locations(location: bytes, target: str) -> None:
    assert parsed(redirected(parsed("http://user:pass@a.test/b/c"), location)).text == target
    assert parsed(redirected(parsed("http://user:pass@a.test/b/c"), location)).userinfo is None
