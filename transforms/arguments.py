"""The arguments of the public transforms are of the types that their signatures say, or refused by name."""

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

# Arguments whose values no text may show.
_SECRETS = frozenset({"http_headers"})

_Init = TypeVar("_Init", bound=Callable[..., None])


def checked_arguments(init: _Init) -> _Init:
    """A decorator for ``__init__``: arguments of another type than the signature's are a ``ValueError``.

    Equal values of a near type are converted: a list to a tuple, a whole number to a fraction, a number of numpy to one
    of Python.
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
    """The value of an argument, in the type that the hint says.

    Raises:
      ValueError: it is of another type; names the argument.
    """
    try:
        return _as(hint, value)
    except TypeError:
        shown = type(value).__name__ if name in _SECRETS else repr(value)
        raise ValueError(f"{name} must be {_in_words(hint)}, not {shown}") from None


def no_argument(name: str, known: Sequence[str]) -> str:
    """The message for an unknown argument."""
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"no argument is called {name!r}; {hint}There are {', '.join(known)}"


def _unbound(named: dict[str, Any], signature: inspect.Signature) -> str | None:
    known = list(signature.parameters)[1:]
    return next((no_argument(name, known) for name in named if name not in known), None)


def _in_words(hint: Any) -> str:
    """A type as a sentence names it."""
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
    """The argument ``max_batch_duration_secs``; raises ``ValueError`` if it is no time to wait."""
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
    # A bool is an int in Python, and no number of anything.
    elif hint in (int, float):
        kind = numbers.Integral if hint is int else numbers.Real
        if isinstance(value, kind) and not isinstance(value, bool):
            return hint(value)
    elif isinstance(value, origin or hint):
        return value
    raise TypeError
