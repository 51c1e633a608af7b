"""The expansion service's options and answers; ``tests/transforms/test_cross_language.py`` calls it."""

import socket
import traceback

import pytest

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.runners.expansion_service import serve, without_traceback
from support.servers import free_port

POOL = ("--environment_type=EXTERNAL", "--environment_config=localhost:50000")


@pytest.mark.parametrize(
    ("options", "with_workers"),
    [
        ([], False),
        (["--temp_location=gs://bucket/tmp"], False),
        (POOL, True),
        (["--environment_type=EXTERNAL"], False),
        (["--environment_type=PROCESS"], False),
        (["--environment_type=PROCESS", "--environment_config={"], False),
        ([*POOL, "--runner=PrismRunner"], False),
        ([*POOL, "--tmp_location=gs://bucket/tmp"], False),
    ],
)
def test_options_that_cannot_work_are_refused(options, with_workers):
    with pytest.raises(UsageError, match=r"--(environment_type|tmp_location|runner)"):
        serve("localhost", free_port(), options, with_workers=with_workers)


@pytest.mark.parametrize("options", [POOL, ["--sdk_container_image=example.com/worker"]])
def test_each_way_to_name_workers_will_do(options):
    serve("localhost", free_port(), options, with_workers=False).stop(None).wait()


def test_a_port_that_is_taken_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=str(port)):
            serve("127.0.0.1", port, POOL, with_workers=False)


def test_no_two_services_share_a_port():
    port = free_port()
    first = serve("127.0.0.1", port, POOL, with_workers=False)
    try:
        with pytest.raises(UsageError, match=str(port)):
            serve("127.0.0.1", port, POOL, with_workers=False)
    finally:
        first.stop(None).wait()


def raised(message: str) -> str:
    """The traceback of an error with a cause."""
    try:
        try:
            raise KeyError("cause")
        except KeyError as error:
            raise ValueError(message) from error
    except ValueError:
        return traceback.format_exc()


@pytest.mark.parametrize("message", ["top_k: 12 is too many", "several\n  indented\nlines\n", ""])
def test_the_answer_is_the_exception(message):
    said = without_traceback(raised(message))
    assert said.strip() == f"ValueError: {message}".strip().removesuffix(":" if not message else "")


def test_a_text_without_a_traceback_is_left():
    assert without_traceback("no transform") == "no transform"
