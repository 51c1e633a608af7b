"""Credentials are removed from texts at every position; texts without any stay unchanged."""

from __future__ import annotations

import re
import sys
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamlabel.transforms.secrets.names import BESIDE, NAMES, PREFIXES
from beamlabel.transforms.secrets.text import public_text, public_uri, public_values
from support.secret_urls import CONTEXTS, urls

SECRET = "Zq7xS3cretZq7x"
many = settings(max_examples=400, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize("context", CONTEXTS)
def test_no_url_of_any_kind_keeps_its_secret_in_any_text(context: str) -> None:
    for url in urls(SECRET):
        if context.startswith("https://proxy") and re.match(r"//|user:", url):
            continue  # without a scheme it is a path
        text = context.format(url)
        for clean in (public_text, public_uri):
            found = clean(text)
            assert SECRET not in found, (text, found)
            assert clean(found) == found, text
        assert public_text(public_uri(text)) == public_text(public_text(text))


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/a.jpg?w=100&h=200",
        "https://example.org/@user/photo@2x.jpg",
        "https://example.org/a.jpg;v=2?x=1;y=2#top",
        "https://example.org/a.jpg?url=https%3A%2F%2Fother.example.org%2Fa%20b.jpg&w=1",
        "https://example.org/crop=10:20@300x200/a.jpg",
        "https://example.org:8080/a.jpg",
        "https://[2001:db8::1]:8080/a@b.jpg",
        "abfs://container@account.dfs.core.windows.net/a.jpg",
        "abfss://a-container-of-2026-photos@account.dfs.core.windows.net/a.jpg",
        "sftp://user@host/a.jpg",
        "gs://bucket/what?w=1#2@3;4%41.jpg",
        "s3://arn:aws:s3:us-east-1:123456789012:accesspoint/a/b.jpg",
        "file:///data/a?sig=1#2.jpg",
        "/data/user:pw@host/what?sig=1.jpg",
        "relative/what?token=1.jpg",
        "icon@2x.png",
        "mailto:jane@example.org",
        "jane@example.org wrote of https://example.org/a.jpg",
        "12:30@home.jpg",
        "a: b, c",
        "https://example.org/a.jpg?q=100%&x=%zz",
        "",
        "data:image/png;base64,AAAA//8=",
    ],
)
def test_text_without_a_secret_stays_verbatim(text: str) -> None:
    assert public_uri(text) == text
    if "?sig" not in text and "?token" not in text:  # in a message every query counts, after any text
        assert public_text(text) == text


def test_the_rest_of_the_text_is_kept() -> None:
    text = "GET 'https://u:p@h.org/a b.jpg?w=1&token=x y' (see https://h.org/?sig=1): 403, of https://u:p q@h.org/x"
    assert public_text(text) == (
        "GET 'https://h.org/a b.jpg?w=1' (see https://h.org/): 403, of https://h.org/x"
    )


def test_a_query_without_its_url_is_one_in_a_message() -> None:
    assert (
        public_text("Retrying after 503: /a.jpg?w=1&token=abc&h=2")
        == "Retrying after 503: /a.jpg?w=1&token=&h=2"
    )


def test_values_are_cleaned_with_their_keys() -> None:
    url = "https://u:p@h.org/a?sig=1"
    assert public_values({url: [url, 1, None, {"a": (url,)}]}) == {
        "https://h.org/a": ["https://h.org/a", 1, None, {"a": ("https://h.org/a",)}]
    }


# --- properties ---

secrets = st.text("ABCXYZabcxyz0123456789", min_size=8, max_size=40).map(lambda text: f"Zq9{text}9qZ")
schemes = st.sampled_from(["http", "https", "s3", "gs", "ftp", "abfs", "hdfs", "webdav", "s3a", "HTTPS"])
hosts = st.sampled_from(
    ["h.org", "localhost", "10.0.0.1:8080", "[::1]:80", "a-b.c.example.com", "bücher.example"]
)
plain = st.text("abcABC019-._~", min_size=1, max_size=8)
paths = st.lists(plain, max_size=3).map(lambda parts: "".join(f"/{part}" for part in parts))
public_pairs = st.tuples(st.sampled_from(["w", "h", "id", "page", "v"]), plain).map("=".join)
surroundings = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="@"), max_size=20)


@st.composite
def names(draw: st.DrawFn) -> str:
    """A name from the table in any letter case, with some letters percent-encoded, perhaps twice."""
    name = draw(
        st.one_of(
            st.sampled_from(sorted(NAMES)), st.sampled_from(PREFIXES).map(lambda one: one + "Signature")
        )
    )
    written = []
    for letter in name:
        letter = letter.upper() if draw(st.booleans()) else letter
        form = draw(st.integers(0, 5))
        code = f"%{ord(letter):02X}"
        written.append({0: code, 1: code.replace("%", "%25")}.get(form, letter))
    return "".join(written)


@st.composite
def secret_urls(draw: st.DrawFn) -> tuple[str, str]:
    """A URL and its secret."""
    secret, base = draw(secrets), draw(hosts) + draw(paths)
    scheme = draw(schemes)
    if draw(st.booleans()):
        user = draw(st.sampled_from(["user", "", "us%40er", "a.b", "üser"]))
        url = f"{scheme}://{user}:{secret}@{base}"
        return (url + "?" + draw(public_pairs) if draw(st.booleans()) else url), secret
    pairs = draw(st.lists(public_pairs, max_size=3))
    pairs.insert(draw(st.integers(0, len(pairs))), f"{draw(names())}={secret}")
    separator = draw(st.sampled_from("&;"))
    web = draw(st.sampled_from(["http", "https", "s3", "webdav"]))
    begin = draw(st.sampled_from(["?", "#", "/a.jpg?", ";", "/b;", "/x#", "/x#/y?"]))
    url = f"{web}://{base}{begin}{separator.join(pairs)}"
    depth = draw(st.integers(0, 2))
    for _ in range(depth):
        url = quote(url, safe="")
    return (f"https://outer.example.org/p?url={url}" if depth else url), secret


@many
@given(secret_urls(), surroundings, surroundings)
def test_no_secret_is_left_in_any_text(made: tuple[str, str], before: str, after: str) -> None:
    url, secret = made
    for text in (
        url,
        f"{before} {url} {after}",
        f'{before}"{url}"{after}',
        f"{before},{url},{after}",
        f"{before}{url}",
    ):
        for clean in (public_text, public_uri):
            found = clean(text)
            assert secret not in found, text
            assert clean(found) == found, text


@many
@given(schemes, hosts, paths, st.lists(public_pairs, max_size=3), st.sampled_from(["", "#top", "#a=1"]))
def test_a_url_without_secrets_is_verbatim(
    scheme: str, host: str, path: str, pairs: list[str], fragment: str
) -> None:
    url = f"{scheme}://{host}{path}{'?' if pairs else ''}{'&'.join(pairs)}{fragment}"
    assert public_uri(url) == url
    assert public_text(f"it was {url} there") == f"it was {url} there"


@many
@given(st.text(max_size=200))
def test_any_text_is_taken_and_cleaned_at_once(text: str) -> None:
    for clean in (public_text, public_uri):
        found = clean(text)
        assert clean(found) == found


@many
@given(st.text("ab:/@?#;&=%2534A\"' \\.", max_size=60))
def test_texts_of_the_characters_that_count_are_cleaned_at_once(text: str) -> None:
    for clean in (public_text, public_uri):
        found = clean(text)
        assert clean(found) == found


def test_a_long_text_takes_time_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured by Python's steps, not by a clock."""

    def steps(text: str) -> int:
        count = 0

        def trace(*_: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(trace)
        try:
            public_text(text)
        finally:
            sys.setprofile(None)
        return count

    for part in ("https://h.org/a?w=1 ", "https://u:p@h.org/a;token=1 ", "a:b@c ", "%3A%2F%2F", "x=1&"):
        assert steps(part * 400) < 12 * steps(part * 100) + 1000


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer {}", "authorization=Bearer {}", "{{'Authorization': 'Bearer {}'}}", "Bearer {}",
        '{{"authorization": "Basic {}"}}', "--http_header=Authorization=Bearer {}", "Proxy-Authorization: {}",
        "GET / HTTP/1.1\nauthorization: token {}\nhost: a", "Authorization: Custom {}", "X-Api-Key: {}",
        "Authorization: AWS4-HMAC-SHA256 Credential={0}/2026, SignedHeaders=x, Signature={0}", "Cookie: session={}",
        'Authorization: Digest username="x", response="{}"', "Authorization: SharedKey account:{}",
        "[('x-goog-api-key', '{}')]", "{{b'X-Auth-Token': b'{}'}}",
    ],
)  # fmt: skip
def test_headers_of_requests_hold_none(text: str) -> None:
    assert SECRET not in public_text(text.format(SECRET))
    assert SECRET not in public_text(public_text(text.format(SECRET)))


@pytest.mark.parametrize(
    "text",
    [
        "a bearer of good news", "Basic English", "basic authorization is needed", "authorization: none",
        "/data/a:b@2x.png", "file:///C:\\photos\\cat:1@2x.png", "gs://bucket/a\\b@c.png", "/a/https/cat@2x.png",
        "https://h.org/a%40b.jpg", "https://h.org/\uff20home.jpg", "deadbeef0123456789abcdef@2x.png",
        "camera:1@front.jpg", "C:\\photos\\a:b@c.jpg", "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/a/b@2x.jpg",
        "https://h.org/sign=stop/a.jpg", "https://h.org/a?sample_token=1", "not found: /data/basic IMG_20240101.jpg",
        "https://h.org/a%3Fw=1.jpg", "https://h.org/a?w=1,h=2", "a\\u0026b=c", "R&#38;D=1", "git+ssh://git@h.org/a",
    ],
)  # fmt: skip
def test_text_like_a_credential_stays_verbatim(text: str) -> None:
    assert public_text(text) == text
    assert public_uri(text) == text


@pytest.mark.parametrize(
    "url",
    [
        "https://h.org/a?w=1\\u0026token={}", "https://h.org/a?token\\u003d{}", "https://h.org/a?w=1\\x26sig={}",
        "https://u:{}\\u0040h.org/a", "https:&#x2F;&#x2F;u:{}@h.org/a", "https://u:{}&#64;h.org/a",
        "https://h.org/a%3Ftoken%3D{}", "https://h.org/a%253Ftoken%253D{}", "https://h.org/a%3Btoken={}",
        "https://h.org/a?token%3D{}", "https://h.org/a?w=1,token={}", 'https://h.org/a?token="{}"',
        "https://h.org/edge-cache-token=Expires=1&Signature={}/a.jpg", "https://h.org/bcdn_token={}&expires=1/a.jpg",
        "https://h.org/a?token[0]={}", "https://h.org/a?user[token][x]={}", "https://h.org/a?db_password={}",
        "https://h.org/a?download_token={}", "https://h.org/a?x-auth={}", "git+https://{}@github.com/a",
    ],
)  # fmt: skip
def test_no_spelling_hides_a_secret(url: str) -> None:
    for text in (url.format(SECRET), f"see '{url.format(SECRET)}'", f"{url.format(SECRET)}: gone"):
        found = public_text(text)
        assert SECRET not in found
        assert public_text(found) == found
    assert SECRET not in public_uri(url.format(SECRET))


def test_ordinary_locations_cost_no_regular_expression(monkeypatch: pytest.MonkeyPatch) -> None:
    import beamlabel.transforms.secrets.text as module

    monkeypatch.setattr(module, "_settled", lambda *_: pytest.fail("it was looked through"))
    for uri in ("https://h.org/a/b.jpg", "gs://b/a.jpg", "/data/a b.jpg", "a.jpg", "s3://b/a%20b.jpg"):
        assert public_uri(uri) == uri
    for text in ("not found", "it is a file: /data/a.jpg"):
        assert public_text(text) == text


def test_the_table_is_in_one_spelling() -> None:
    for name in NAMES | {one for others in BESIDE.values() for one in others}:
        assert re.fullmatch(r"[a-z0-9_.-]+", name)
