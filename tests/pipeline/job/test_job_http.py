"""A job over a web list: the requests to servers, and no secret in the output."""

import logging

import pytest

from beamlabel.pipeline.options.parser import parse
from beamlabel.pipeline.run import UsageError
from support.http_site import reply
from support.jobs import label, photos

SECRET = "s3cret-t0ken"


@pytest.fixture
def listed(http_site, tmp_path):
    """A list of images: one good, one forbidden, one missing, one closed to models."""
    body = photos(tmp_path / "photos", 1)[0].read_bytes()
    urls = [
        http_site.on("/a.png", reply(body=body)),
        http_site.on("/b.png", reply(403, SECRET.encode())),
        http_site.on("/c.png", reply(404, b"")),
        http_site.on("/d.png", reply(body=body, X_Robots_Tag="noai")),
    ]
    path = tmp_path / "list.txt"
    path.write_text("\n".join(urls))
    return path


def test_secrets_reach_the_server_and_nothing_else(http_site, listed, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    headers = ("--http_header", f"Authorization=Bearer {SECRET}", f"X-Key={SECRET}")
    web = ("--allow_http", "--allow_private_hosts", "--user_agent", "me/1 (+mailto:me@example.org)", *headers)
    job = label(tmp_path / "out", "--input", listed, "--max_error_rate", 1, "--report", *web)
    assert job.code == 0
    assert {headers["Authorization"] for _, headers, _ in http_site.requests} == {f"Bearer {SECRET}"}
    assert {headers["User-Agent"] for _, headers, _ in http_site.requests} == {
        "me/1 (+mailto:me@example.org)"
    }
    assert [failure["reason"] for failure in job.failures] == ["forbidden", "not_found", "not_allowed"]
    assert job.manifest["options"]["http_header"] == ["Authorization", "X-Key"]
    said = capfd.readouterr()
    assert SECRET not in caplog.text + said.out + said.err
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


ARGUMENTS = ("--input", "a", "--module", "m", "--output", "o")


@pytest.mark.parametrize(
    "given",
    [
        ("--allow_http", "--http_header", SECRET),
        ("--allow_http", "--http_header", f"Authorization: {SECRET}"),
        ("--allow_http", "--http_header", f"={SECRET}"),
        ("--allow_http", "--http_header", f"A B={SECRET}"),
        ("--allow_http", "--http_header", f"A={SECRET}\r\nB: 1"),
        ("--allow_http", "--http_header", f"Host={SECRET}"),
        ("--allow_http", "--http_header", f"User-Agent={SECRET}"),
        ("--allow_http", "--http_header", f"A={SECRET}", f"a={SECRET}"),
        ("--allow_http", "--http_header", "Authorization=Bearer", SECRET),
        ("--http_header", f"A={SECRET}"),
        ("--user_agent", "me/1"),
        ("--ignore_robots_tag",),
        ("--allow_http", "--user_agent", ""),
        ("--allow_http", "--user_agent", "a\nb"),
        ("--allow_http", "--http_per_host", "0"),
        ("--billing_project", "a b"),
    ],
)
def test_a_value_that_cannot_be_sent_is_a_usage_error(given):
    with pytest.raises(UsageError) as caught:
        parse([*ARGUMENTS, *given])
    assert next(word for word in given if word != "--allow_http") in str(caught.value)
    assert SECRET not in str(caught.value)


def test_headers_are_repeatable_and_may_hold_equals_signs():
    given = ("--allow_http", "--http_header", "A=b=c", "B=d", "--http_header", "C=e f")
    options, _ = parse([*ARGUMENTS, *given])
    assert [(one.name, one.value) for one in options.loading.http_header] == [
        ("A", "b=c"),
        ("B", "d"),
        ("C", "e f"),
    ]
    assert "e f" not in repr(options)
