"""The allowed headers; no text shows their values."""

import pickle

import pytest

from beamlabel.transforms.loading.fetch import FetchOptions
from beamlabel.transforms.loading.web.http_options import CONTACT_URL, HttpHeader, HttpOptions, headers_of
from support.paths import ROOT

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", SECRET),
        ("A B", SECRET),
        ("A:", SECRET),
        ("A\r\nB", SECRET),
        ("Ä", SECRET),
        ("X-A", f"{SECRET}\r\nX-B: 1"),
        ("X-A", f"{SECRET}\n"),
        ("X-A", f"{SECRET}\0"),
        ("X-A", f"{SECRET}\ud800"),
        ("X-A", ""),
        ("X-A", "  "),
        ("Host", SECRET),
        ("content-length", SECRET),
        ("Range", SECRET),
        ("If-None-Match", SECRET),
        ("Accept-Encoding", SECRET),
        ("Transfer-Encoding", SECRET),
        ("user-agent", SECRET),
    ],
)
def test_an_invalid_header_is_refused(name: str, value: str) -> None:
    for made in (lambda: HttpHeader(name, value), lambda: HttpOptions(headers=((name, value),))):
        with pytest.raises(ValueError) as caught:
            made()
        assert SECRET not in str(caught.value)


def test_a_header_is_there_once() -> None:
    with pytest.raises(ValueError, match=r"http_headers.*twice") as caught:
        HttpOptions(headers=(("X-Key", SECRET), ("x-key", SECRET)))
    assert SECRET not in str(caught.value)


def test_no_text_shows_a_value() -> None:
    options = FetchOptions(allow_http=True, http=HttpOptions(headers=(("Authorization", SECRET),)))
    assert SECRET not in f"{options!r} {options.http} {options.identity()} {HttpHeader('X-Key', SECRET)}"
    assert pickle.loads(pickle.dumps(options)) == options


def test_a_new_token_is_no_new_plan() -> None:
    first, second, other = (
        FetchOptions(http=HttpOptions(headers=((name, value),)))
        for name, value in (("Authorization", "a"), ("authorization", "b"), ("Cookie", "a"))
    )
    assert first.identity() == second.identity() != other.identity()


@pytest.mark.parametrize(
    "given",
    [
        {"user_agent": ""},
        {"user_agent": "a\nb"},
        {"per_host": 0},
        {"per_host": True},
        {"ignore_robots_tag": 1},
    ],
)
def test_other_values_are_checked(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(given))):
        HttpOptions(**given)  # type: ignore[arg-type]


def test_the_public_argument_takes_texts() -> None:
    assert headers_of(None) == ()
    assert headers_of({"A": "b"}) == (("A", "b"),)
    with pytest.raises(ValueError, match="http_headers"):
        headers_of({"A": 3})  # type: ignore[dict-item]


def test_servers_are_told_where_to_ask() -> None:
    assert f"(+{CONTACT_URL})" in HttpOptions().agent
    assert f'"{CONTACT_URL}"' in (ROOT / "pyproject.toml").read_text()
    assert HttpOptions(user_agent="a/1 (+mailto:b@c)").agent == "a/1 (+mailto:b@c)"
