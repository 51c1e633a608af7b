import os
import subprocess
import sys

import pytest

from beamlabel.transforms.storage.uris import public_uri, resolve, sample_hash, scheme

SIGNED = [
    "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=a%40b&X-Goog-Signature=00ff",
    "GoogleAccessId=a@b&Expires=1700000000&Signature=abc%3D",
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Security-Token=tok&X-Amz-Signature=00ff",
    "AWSAccessKeyId=AKIA&Expires=1700000000&Signature=abc",
    "Policy=e30_&Signature=abc&Key-Pair-Id=K2",
    "sv=2022-11-02&sr=b&sp=r&sig=abc%3D",
    "x-goog-signature=00ff",
    "SIG=00ff",
    "X%2DAmz%2DSignature=00ff",
]


@pytest.mark.parametrize("query", SIGNED)
def test_the_query_of_a_signed_url_is_removed(query: str) -> None:
    assert public_uri(f"https://host/a%20b.jpg?{query}") == "https://host/a%20b.jpg"
    assert public_uri(f"HTTP://Host:8080/a?{query}#top") == "HTTP://Host:8080/a#top"


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("alt=media&token=5f0c", "alt=media"),
        ("width=10&SIG=00ff", "width=10"),
        ("a=1;signature=00ff", "a=1"),
        ("token=x&id=1;b=2", "id=1;b=2"),
        ("id=1&X-Amz-Date=1&b=&X-Amz-Signature=2&c", "id=1&b=&c"),
        ("sv=2022&id=7&sr=b&sig=abc", "id=7"),
        ("id=1&key=AIzaSyA1234567890abcdefghijklmnopqrstuv", "id=1"),
    ],
)
def test_only_credentials_are_removed_from_a_query(query: str, kept: str) -> None:
    assert public_uri(f"https://host/a?{query}#top") == f"https://host/a?{kept}#top"


@pytest.mark.parametrize(
    "uri",
    [
        "https://host/a.jpg?sr=1&st=2&sp=3",
        "https://host/a.jpg?policy=thumbnail&key=cat.jpg",
        "https://host/a.jpg?width=640&height=480",
        "https://host/a.jpg?design=sig&x=signature",
        "https://host/signature?",
        "https://host/@user:x@y.jpg",
        "https://host",
        "gs://bucket/what?sig=1#2 @:%41é.jpg",
        "gs://bucket/a:b@c.jpg",
        "/data/user:pw@host/what?sig=1#2.jpg",
        "relative/what?token=1.jpg",
        "file:///data/a%20b.jpg?sig=1",
        "abfs://container@account.dfs.core.windows.net/a.jpg",
        "s3://bucket/user:pw@host.jpg",
        "",
    ],
)
def test_text_without_a_credential_stays_verbatim(uri: str) -> None:
    assert public_uri(uri) == uri


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("https://user:pw@host/a.jpg?w=1", "https://host/a.jpg?w=1"),
        ("https://token@host/a.jpg", "https://host/a.jpg"),
        ("http://user:p@ss@host:8080/x@y", "http://host:8080/x@y"),
        ("https://user:pw@host?sig=1", "https://host"),
        ("sftp://user:p@ss@host/a.jpg", "sftp://host/a.jpg"),
    ],
)
def test_userinfo_is_removed(uri: str, public: str) -> None:
    assert public_uri(uri) == public


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("a.jpg", "/base/a.jpg"),
        ("sub/ü b#c%20d:e?.jpg", "/base/sub/ü b#c%20d:e?.jpg"),
        ("../a.jpg", "/base/../a.jpg"),
        ("/abs/ü b#c%20d:e.jpg", "/abs/ü b#c%20d:e.jpg"),
        ("c:a.jpg", "/base/c:a.jpg"),
        ("file:///abs/%C3%BC%20b%23.jpg", "/abs/ü b#.jpg"),
        ("file://localhost/abs/a.jpg", "/abs/a.jpg"),
        ("FILE:///abs/a.jpg", "/abs/a.jpg"),
        ("file:///abs/a?b#c.jpg", "/abs/a?b#c.jpg"),
        ("file://server/abs/a%20b.jpg", "file://server/abs/a%20b.jpg"),
        ("gs://bucket/ü b#c%20d:e?.jpg", "gs://bucket/ü b#c%20d:e?.jpg"),
        ("https://host/a%20b.jpg?x#y", "https://host/a%20b.jpg?x#y"),
    ],
)
def test_resolve_with_a_local_base(uri: str, location: str) -> None:
    assert resolve(uri, "/base") == location
    assert resolve(uri, "/base/") == location
    assert resolve(uri, "file:///base") == location


@pytest.mark.parametrize(
    ("uri", "base", "location"),
    [
        ("a#%20ü.jpg", "gs://bucket", "gs://bucket/a#%20ü.jpg"),
        ("sub/a.jpg", "gs://bucket/directory/", "gs://bucket/directory/sub/a.jpg"),
        ("./a.jpg", "gs://bucket/directory", "gs://bucket/directory/a.jpg"),
        (".a.jpg", "gs://bucket/directory", "gs://bucket/directory/.a.jpg"),
        ("/abs/a.jpg", "gs://bucket/directory", "/abs/a.jpg"),
        ("gs://other/a.jpg", "gs://bucket", "gs://other/a.jpg"),
        ("file:///abs/a%20b.jpg", "gs://bucket", "/abs/a b.jpg"),
        ("a.jpg?w=1", "https://host/directory", "https://host/directory/a.jpg?w=1"),
        ("a b.jpg", "file://localhost/with%20space", "/with space/a b.jpg"),
    ],
)
def test_resolve_with_other_bases(uri: str, base: str, location: str) -> None:
    assert resolve(uri, base) == location


def test_scheme() -> None:
    assert [scheme(uri) for uri in ("gs://b/a", "HTTPS://h", "/a://b", "a:b", "c:/a", "")] == [
        *("gs", "https"),
        *[None] * 4,
    ]


def test_a_file_uri_names_bytes_that_are_no_utf8() -> None:
    assert os.fsencode(resolve("file:///abs/%FF.jpg", "/")) == b"/abs/\xff.jpg"


def test_sample_hash_is_the_same_everywhere() -> None:
    """The numbers are fixed here, since a change would silently sample other images."""
    known = {"": 0.8931675160897388, "gs://bucket/a.jpg": 0.5609982379061892, "ü": 0.3357180333125356}
    code = "from beamlabel.transforms.storage.uris import sample_hash as h; import sys; print(*map(h, sys.argv[1:]))"
    other = subprocess.run([sys.executable, "-c", code, *known], capture_output=True, text=True, check=True)
    assert [float(value) for value in other.stdout.split()] == [sample_hash(uri) for uri in known]
    assert {uri: sample_hash(uri) for uri in known} == pytest.approx(known, abs=1e-12)


def test_sample_hash_is_uniform() -> None:
    hashes = [sample_hash(f"gs://bucket/{i}.jpg") for i in range(10_000)]
    assert 0 <= min(hashes) < 0.001
    assert 0.999 < max(hashes) < 1
    for fraction in (0.01, 0.1, 0.5, 0.9):  # five standard deviations
        expected = 10_000 * fraction
        assert abs(sum(h < fraction for h in hashes) - expected) < 5 * (expected * (1 - fraction)) ** 0.5


def test_sample_hash_takes_names_that_are_no_utf8() -> None:
    assert sample_hash(os.fsdecode(b"/abs/\xff.jpg")) != sample_hash(os.fsdecode(b"/abs/\xfe.jpg"))


def test_importing_uris_is_light() -> None:
    code = "import beamlabel.transforms.storage.uris, sys; print({'numpy', 'apache_beam', 'urllib3'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
