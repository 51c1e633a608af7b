"""``LabelImages`` over web lists: the effect of its arguments on requests."""

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from beamlabel import LabelImages
from support.http_site import reply
from support.jobs import TINY, photos


def test_no_message_shows_a_header():
    for headers in (["s3cret"], "s3cret", {"A": "s3cret\n"}, {"Host": "s3cret"}, {"A": "s3cret", "a": "b"}):
        with pytest.raises(ValueError, match="http_headers") as caught:
            LabelImages(TINY, http_headers=headers)
        assert "s3cret" not in str(caught.value)


def test_the_web_is_asked_as_the_arguments_say(http_site, tmp_path):
    body = photos(tmp_path, 1)[0].read_bytes()
    urls = [
        http_site.on("/a.png", reply(body=body)),
        http_site.on("/b.png", reply(body=body, X_Robots_Tag="noai")),
    ]
    web = {
        "allow_http": True,
        "allow_private_hosts": True,
        "http_headers": {"X-Key": "s3cret"},
        "user_agent": "me/1",
    }
    with beam.Pipeline(runner=FnApiRunner()) as p:
        labeled = p | beam.Create(urls) | LabelImages(TINY, **web)
        assert_that(labeled.predictions | beam.Map(lambda row: row.uri), equal_to(urls[:1]))
        seen = labeled.failures | beam.Map(lambda row: (row.uri, row.reason, "--" in row.detail))
        assert_that(seen, equal_to([(urls[1], "not_allowed", False)]), label="Failures")
    assert {(headers["X-Key"], headers["User-Agent"]) for _, headers, _ in http_site.requests} == {
        ("s3cret", "me/1")
    }
