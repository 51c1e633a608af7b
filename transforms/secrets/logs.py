"""Log records without credentials."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
import warnings
from types import TracebackType
from typing import Any

from beamlabel.transforms.secrets.say import Stream, say
from beamlabel.transforms.secrets.text import public_text


class PublicRecords(logging.Filter):
    """Removes credentials from a record's message, arguments and traceback.

    A record without credentials keeps its arguments and its exception.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Cleans the record; always true."""
        try:
            message = record.getMessage()
        except Exception:  # wrong arguments: the formatter reports them
            return True
        public = public_text(message)
        if public != message:
            record.msg, record.args = public, None
        if record.exc_info and record.exc_info[0] is not None:
            told = "".join(traceback.format_exception(*record.exc_info)).rstrip()
            public = public_text(told)
            if public != told:
                # Handlers format an exception themselves, but use a given text unchanged.
                record.exc_info, record.exc_text = None, public
        if record.stack_info:
            record.stack_info = public_text(record.stack_info)
        return True


_PUBLIC = PublicRecords()


def get_logger(name: str) -> logging.Logger:
    """``logging.getLogger``, whose records hold no credentials, with any handlers."""
    logger = logging.getLogger(name)
    logger.addFilter(_PUBLIC)  # adding it again has no effect
    return logger


def make_public() -> None:
    """Removes credentials from all records of the root's handlers, from uncaught exceptions and from warnings."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(_PUBLIC)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable
    warnings.showwarning = _warned


def make_all_records_public() -> None:
    """Removes credentials from all records of this process, also if other code installs the handlers."""
    made = logging.getLogRecordFactory()

    def factory(*args: Any, **named: Any) -> logging.LogRecord:
        record = made(*args, **named)
        _PUBLIC.filter(record)
        return record

    logging.setLogRecordFactory(factory)
    make_public()


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _say("".join(traceback.format_exception(kind, error, trace)))


def _uncaught_in_thread(uncaught: threading.ExceptHookArgs) -> None:
    if uncaught.exc_type is not SystemExit and uncaught.exc_value is not None:
        _uncaught(uncaught.exc_type, uncaught.exc_value, uncaught.exc_traceback)


def _unraisable(ignored: Any) -> None:
    """See ``sys.unraisablehook``: an exception of a destructor."""
    told = traceback.format_exception(ignored.exc_type, ignored.exc_value, ignored.exc_traceback)
    _say(f"{ignored.err_msg or 'Exception ignored in'}: {ignored.object!r}\n{''.join(told)}")


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Stream | None = None,
    line: str | None = None,
) -> None:
    """See ``warnings.showwarning``."""
    _say(warnings.formatwarning(message, category, filename, lineno, line), file)


def _say(text: str, stream: Stream | None = None) -> None:
    say(text.rstrip().replace("\n", "\n    "), stream, kept="\n\t")
