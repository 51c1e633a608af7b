"""The types of options, which parse text into values. Invalid text is an ``ArgumentTypeError`` that names it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date as calendar_date
from typing import Generic, TypeVar

from beamlabel.transforms.loading.web.allowed_schemes import check_schemes
from beamlabel.transforms.loading.web.http_options import HttpHeader
from beamlabel.transforms.storage.billing import check_billing_project

T = TypeVar("T")


@dataclass(frozen=True)
class OptionType(Generic[T]):
    """Parser and pattern of an option's value.

    Attributes:
      parse: text → value; raises ``ArgumentTypeError``.
      regex: in POSIX extended syntax, as forms require; accepts every text that ``parse`` accepts.
    """

    parse: Callable[[str], T]
    regex: str


def whole(minimum: int) -> OptionType[int]:
    """Whole numbers of at least ``minimum``."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\d+(_\d+)*", text) or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {minimum}")
        return int(text)

    return OptionType(parse, "^[0-9]+(_[0-9]+)*$")


def auto_or_whole(minimum: int) -> OptionType[int | None]:
    """``auto``, which is None, or whole numbers of at least ``minimum``."""
    of_numbers = whole(minimum)

    def parse(text: str) -> int | None:
        try:
            return None if text == "auto" else of_numbers.parse(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error}, or auto") from None

    return OptionType(parse, "^(auto|[0-9]+(_[0-9]+)*)$")


def number(low: float, high: float, *, above_low: bool) -> OptionType[float]:
    """Numbers from ``low``, excluded if ``above_low``, to ``high``."""

    def parse(text: str) -> float:
        bounds = f"{'above' if above_low else 'at least'} {low:g} and at most {high:g}"
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {bounds}") from None
        if not low <= value <= high or (above_low and value == low):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {bounds}")
        return value

    return OptionType(parse, "^ *[-+]?([0-9_]+[.]?[0-9_]*|[.][0-9_]+)([eE][-+]?[0-9_]+)? *$")


def _text(text: str) -> str:
    return text


def _date(text: str) -> str:
    try:
        return calendar_date.fromisoformat(text).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as 2026-01-31") from None


def _duration(text: str) -> float:
    match = re.fullmatch(r"(?=\d)(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.lower())
    seconds = (
        sum(int(n or 0) * unit for n, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0
    )
    if not seconds:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 6h, 90m or 1h30m")
    return float(seconds)


_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def _byte_size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([kmg]?)(?:i?b)?", text.lower())
    if not match or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500000, 64M or 1G")
    return int(match[1]) * _UNITS[match[2]]


def _image_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 224 or 160x224 (height x width)")
    return int(match[1]), int(match[2] or match[1])


_INPUT_RANGES = {"0,1": (0.0, 1.0), "-1,1": (-1.0, 1.0), "0,255": (0.0, 255.0)}


def _input_range(text: str) -> tuple[float, float]:
    try:
        return _INPUT_RANGES[text.replace(" ", "")]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {' '.join(_INPUT_RANGES)}") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _schemes(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip().lower().removesuffix("://") for name in text.split(",")))
    try:
        check_schemes(names)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of schemes such as gs,https; file stands for local paths"
        ) from None
    return names


def _http_header(text: str) -> HttpHeader:
    # The value is usually a secret. No message may hold it, or a text without '=', which may be only a secret.
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(
            "expected NAME=VALUE, such as 'Authorization=Bearer …', but '=' is missing"
        )
    try:
        return HttpHeader(name, value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _user_agent(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is not a printable line of text")
    return text


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a SHA-256: 64 hexadecimal digits")
    return text.lower()


def _project(text: str) -> str:
    try:
        check_billing_project(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a project's id, such as my-project-123") from None
    return text


# Any text.
TEXT: OptionType[str] = OptionType(_text, "^.+$")
# A day in ISO 8601, such as 2026-01-31.
DATE: OptionType[str] = OptionType(_date, "^[0-9W-]{8,10}$")
# Seconds, from 6h, 90m, 45s or 1h30m.
DURATION: OptionType[float] = OptionType(_duration, "^([0-9]+[hH])?([0-9]+[mM])?([0-9]+[sS])?$")
# Bytes, from 500000, 64M or 1GiB.
BYTE_SIZE: OptionType[int] = OptionType(_byte_size, "^[0-9]+[kKmMgG]?([iI]?[bB])?$")
# Height and width in pixels, from 160x224, or 224 for both.
IMAGE_SIZE: OptionType[tuple[int, int]] = OptionType(_image_size, "^[1-9][0-9]{0,4}(x[1-9][0-9]{0,4})?$")
# The values that the pixels 0 and 255 become.
INPUT_RANGE: OptionType[tuple[float, float]] = OptionType(
    _input_range, "^ *(0 *, *1|- *1 *, *1|0 *, *2 *5 *5) *$"
)
# Words separated by commas.
NAMES: OptionType[tuple[str, ...]] = OptionType(_names, "^[a-z_]+(,[a-z_]+)*$")
# An HTTP header, from NAME=VALUE. Lists are quoted as in a shell, so that any text may be a value.
HTTP_HEADER: OptionType[HttpHeader] = OptionType(_http_header, "^[^=]+=.*$")
# The value of a User-Agent header.
USER_AGENT: OptionType[str] = OptionType(_user_agent, "^.*[^ ].*$")
# A SHA-256 in lower-case hex, from upper or lower case.
SHA256: OptionType[str] = OptionType(_sha256, "^[0-9a-fA-F]{64}$")
# Names of schemes, separated by commas.
SCHEMES: OptionType[tuple[str, ...]] = OptionType(_schemes, "^[A-Za-z0-9+.:/-]+(,[A-Za-z0-9+.:/-]+)*$")
# A Google Cloud project.
PROJECT: OptionType[str] = OptionType(_project, "^[a-z0-9.:-]+$")
