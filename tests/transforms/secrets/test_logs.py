"""Log records hold no credentials in any handler, and neither do uncaught exceptions."""

from __future__ import annotations

import io
import logging
import subprocess
import sys

import pytest

from beamlabel.transforms.secrets.logs import PublicRecords, get_logger

URL = "https://user:s3cr3t@host.example.org/a.jpg?token=s3cr3t"


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(stream: io.StringIO) -> logging.Logger:
    logger = get_logger("beamlabel.test_logs")
    logger.handlers = [logging.StreamHandler(stream)]
    logger.propagate = False
    return logger


def test_messages_arguments_and_tracebacks(logger: logging.Logger, stream: io.StringIO) -> None:
    logger.warning("cannot fetch %s of %d", URL, 7)
    logger.warning(URL)
    logger.warning("%(url)s", {"url": URL})
    try:
        try:
            raise ValueError(f"inner {URL}")
        except ValueError as error:
            raise OSError(2, "gone", URL) from error
    except OSError:
        logger.exception("it broke: %r", [URL])
    told = stream.getvalue()
    assert "s3cr3t" not in told
    assert "cannot fetch https://host.example.org/a.jpg of 7" in told
    assert "Traceback" in told
    assert "inner https://host.example.org/a.jpg" in told


def test_a_record_without_credentials_stays_as_it_is(logger: logging.Logger) -> None:
    kept = []
    logger.addHandler(handler := logging.Handler())
    handler.emit = kept.append  # type: ignore[method-assign]
    try:
        raise ValueError("plain")
    except ValueError:
        logger.warning("%s of %d", "https://host/a.jpg", 7, exc_info=True)
    assert PublicRecords().filter(logging.LogRecord("a", 40, "", 1, "%d", ("no number",), None))
    assert kept[0].args == ("https://host/a.jpg", 7)
    assert kept[0].exc_info is not None


def test_a_logger_has_the_filter_once() -> None:
    assert get_logger("beamlabel.test_logs.once").filters == get_logger("beamlabel.test_logs.once").filters
    assert len(get_logger("beamlabel.test_logs.once").filters) == 1


@pytest.mark.parametrize(
    "code",
    [
        "raise ValueError(URL)",
        "import threading; t = threading.Thread(target=lambda: 1 / 0 if not URL else open(URL)); t.start(); t.join()",
        "logging.getLogger('urllib3').warning('Retrying %s after /a.jpg?token=s3cr3t', URL)",
        "logging.getLogger('other').error(URL, exc_info=ValueError(URL))",
        "import warnings; warnings.warn(URL)",
        "type('A', (), {'__del__': lambda self: open(URL)})()",
    ],
)
@pytest.mark.parametrize(
    "setup",
    [
        "from beamlabel.pipeline.process.exit import set_up_logging as f",
        "from beamlabel.transforms.secrets.logs import make_all_records_public as f",
    ],
)
def test_a_process_tells_no_credentials(setup: str, code: str) -> None:
    program = (
        f"import logging; URL = {URL!r}\n{setup}\nf()\n{code}\nlogging.getLogger('any').warning('%s', URL)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    # A traceback shows the line of the program, which here has no credentials.
    assert "host.example.org" in done.stderr
    assert "s3cr3t" not in done.stderr.replace("token=s3cr3t'", "")


def test_no_module_of_ours_logs_without_the_filter() -> None:
    """All loggers come from ``get_logger``."""
    from support.paths import ROOT

    for path in [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "transforms").rglob("*.py")]:
        text = path.read_text()
        assert "getLogger(__name__)" not in text or path.name == "logs.py", path
        assert 'getLogger("beamlabel")' not in text, path
