"""Checks that arguments of the public transforms have the types in their signatures, and names those that do not."""

from __future__ import annotations

import difflib
import functools
import inspect
import numbers
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

# Arguments whose values must not appear in any text.
_SECRETS = frozenset({"http_headers"})

_Init = TypeVar("_Init", bound=Callable[..., None])


def checked_arguments(init: _Init) -> _Init:
    """Decorates ``__init__`` so that an argument of another type than the signature's raises ``ValueError``.

    Equal values of a similar type are converted: a list to a tuple, an integer to a float, a NumPy number to a Python
    number.
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def checked(self: Any, *given: Any, **named: Any) -> None:
        try:
            bound = signature.bind(self, *given, **named)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}: {_unbound(named, signature) or error}") from None
        hints = type_hints(init)
        for name, value in list(bound.arguments.items())[1:]:
            bound.arguments[name] = typed(name, value, hints[name])
        init(*bound.args, **bound.kwargs)

    return typing.cast(_Init, checked)


@functools.cache
def type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of a function's arguments, by name."""
    return typing.get_type_hints(inspect.unwrap(function))


def typed(name: str, value: Any, hint: Any) -> Any:
    """Converts the value of an argument to the type of the hint.

    Raises:
      ValueError: it has another type; the message names the argument.
    """
    try:
        return _as(hint, value)
    except TypeError:
        shown = type(value).__name__ if name in _SECRETS else repr(value)
        raise ValueError(f"{name} must be {_in_words(hint)}, not {shown}") from None


def no_argument(name: str, known: Sequence[str]) -> str:
    """The message for an unknown argument."""
    close = difflib.get_close_matches(name, known, 1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown argument {name!r}{hint}; the arguments are {', '.join(known)}"


def _unbound(named: dict[str, Any], signature: inspect.Signature) -> str | None:
    known = list(signature.parameters)[1:]
    return next((no_argument(name, known) for name in named if name not in known), None)


def _in_words(hint: Any) -> str:
    """A type as words for a sentence."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_in_words, parts))
    if origin is tuple:
        return f"({', '.join(map(_in_words, parts))})"
    if origin is Sequence:
        return f"a list, each {_in_words(parts[0])}"
    if origin is Mapping:
        return "a dict"
    if (origin or hint) is os.PathLike:
        return "a path"
    words = {int: "a whole number", float: "a number", str: "text", bool: "True or False", type(None): "None"}
    return words.get(hint) or str(getattr(hint, "__name__", hint))


def checked_wait(seconds: float | None) -> float | None:
    """Checks the argument ``max_batch_duration_secs``; raises ``ValueError`` if it is not a positive time."""
    if seconds is not None and not 0 < seconds < float("inf"):
        raise ValueError(f"max_batch_duration_secs must be a positive number of seconds, not {seconds!r}")
    return seconds


def _as(hint: Any, value: Any) -> Any:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for part in parts:
            try:
                return _as(part, value)
            except TypeError:
                continue
    elif origin in (tuple, Sequence):
        if isinstance(value, (list, tuple)):
            wanted = parts if origin is tuple else parts * len(value)
            if len(wanted) == len(value):
                return tuple(_as(part, item) for part, item in zip(wanted, value, strict=True))
    # A bool is an int in Python, but must not pass as a number.
    elif hint in (int, float):
        kind = numbers.Integral if hint is int else numbers.Real
        if isinstance(value, kind) and not isinstance(value, bool):
            return hint(value)
    elif isinstance(value, origin or hint):
        return value
    raise TypeError
