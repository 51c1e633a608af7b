"""What options take: texts → values. What does not fit is an ``ArgumentTypeError`` that names it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from datetime import date as calendar_date


def whole(minimum: int) -> Callable[[str], int]:
    """Whole numbers of at least ``minimum``."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\d+(_\d+)*", text) or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {minimum}")
        return int(text)

    return parse


def number(low: float, high: float, *, above_low: bool) -> Callable[[str], float]:
    """Numbers of ``low``, or only above it, to ``high``."""

    def parse(text: str) -> float:
        bounds = f"{'above' if above_low else 'at least'} {low:g} and at most {high:g}"
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {bounds}") from None
        if not low <= value <= high or (above_low and value == low):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {bounds}")
        return value

    return parse


def date(text: str) -> str:
    """A day in ISO 8601, as ``2026-01-31``."""
    try:
        return calendar_date.fromisoformat(text).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as 2026-01-31") from None


def duration(text: str) -> float:
    """Seconds of ``6h``, ``90m``, ``45s`` or ``1h30m``."""
    match = re.fullmatch(r"(?=\d)(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.lower())
    seconds = (
        sum(int(n or 0) * unit for n, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0
    )
    if not seconds:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 6h, 90m or 1h30m")
    return float(seconds)


_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def byte_size(text: str) -> int:
    """Bytes of ``500000``, ``64M`` or ``1GiB``."""
    match = re.fullmatch(r"(\d+)([kmg]?)(?:i?b)?", text.lower())
    if not match or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500000, 64M or 1G")
    return int(match[1]) * _UNITS[match[2]]


def image_size(text: str) -> tuple[int, int]:
    """Height and width in pixels of ``160x224``, or ``224`` for both."""
    match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 224 or 160x224 (height x width)")
    return int(match[1]), int(match[2] or match[1])


_INPUT_RANGES = {"0,1": (0.0, 1.0), "-1,1": (-1.0, 1.0), "0,255": (0.0, 255.0)}


def input_range(text: str) -> tuple[float, float]:
    """What the pixels 0 and 255 become."""
    try:
        return _INPUT_RANGES[text.replace(" ", "")]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {' '.join(_INPUT_RANGES)}") from None


def names(text: str) -> list[str]:
    """Words between commas."""
    return text.split(",")
