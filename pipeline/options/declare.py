"""Declares an option once, as a field of a frozen dataclass that generates parsers, tables and forms.

Example::

    @dataclass(frozen=True, kw_only=True)
    class LoadingOptions:
        max_bytes: int = option(BYTE_SIZE, default=64 * 2**20, metavar="SIZE", help="refuse larger images")
        allow_http: bool = flag(help="fetch http:// and https:// URIs")

The field's name is the option's: ``max_bytes`` is ``--max_bytes``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from beamlabel.pipeline.options.types import TEXT, OptionType

_T = TypeVar("_T")
_D = TypeVar("_D")
_KEY = "option"


@dataclass(frozen=True)
class Option:
    """The declaration of one option.

    Attributes:
      name: the field's name; the option is ``--name``, or a positional argument if ``is_positional``.
      help: one sentence, without a full stop.
      type: parses the text into the value; None for a flag.
      metavar: placeholder for the value in help texts; empty for a flag.
      choices: all allowed values; empty if ``type`` decides.
      default: the value if the option is not given.
      is_flag: whether the option takes no value.
      is_list: whether it takes several values, and may be repeated.
      is_required: whether it must be given.
      is_positional: whether it is a positional argument.
      is_single: for a list, whether each occurrence takes one value, so that a positional argument may follow.
    """

    name: str
    help: str
    type: OptionType[Any] | None
    metavar: str
    choices: tuple[str, ...]
    default: object
    is_flag: bool = False
    is_list: bool = False
    is_required: bool = False
    is_positional: bool = False
    is_single: bool = False


def option(
    type: OptionType[_T],
    *,
    help: str,
    metavar: str,
    default: _D = cast(Any, None),  # noqa: B008
) -> _T | _D:
    """An option with a value; ``default`` is the value if it is not given."""
    return cast(Any, _field(default, help=help, type=type, metavar=metavar))


def required(type: OptionType[_T] = cast(Any, TEXT), *, help: str, metavar: str) -> _T:  # noqa: B008
    """An option that must be given."""
    return cast(Any, _field(dataclasses.MISSING, help=help, type=type, metavar=metavar, is_required=True))


def positional(*, help: str, metavar: str) -> str:
    """A positional argument."""
    facts = {"is_required": True, "is_positional": True}
    return cast(Any, _field(dataclasses.MISSING, help=help, type=TEXT, metavar=metavar, **facts))


def several(type: OptionType[_T] = cast(Any, TEXT), *, help: str, metavar: str) -> tuple[_T, ...]:  # noqa: B008
    """A repeatable option that takes one or more values each time."""
    return cast(Any, _field((), help=help, type=type, metavar=metavar, is_list=True))


def repeated(
    type: OptionType[_T] = cast(Any, TEXT),  # noqa: B008
    *,
    help: str,
    metavar: str,
    is_required: bool = False,
) -> tuple[_T, ...]:
    """A repeatable option that takes one value each time."""
    facts = {"is_list": True, "is_single": True, "is_required": is_required}
    default = dataclasses.MISSING if is_required else ()
    return cast(Any, _field(default, help=help, type=type, metavar=metavar, **facts))


def positionals(*, help: str, metavar: str) -> tuple[str, ...]:
    """One or more positional arguments."""
    facts = {"is_required": True, "is_positional": True, "is_list": True}
    return cast(Any, _field(dataclasses.MISSING, help=help, type=TEXT, metavar=metavar, **facts))


def choice(choices: Sequence[str], *, help: str, default: str) -> str:
    """An option whose value is one of ``choices``."""
    return cast(Any, _field(default, help=help, type=TEXT, metavar="", choices=tuple(choices)))


def flag(*, help: str) -> bool:
    """An option without a value: given or not."""
    return cast(Any, _field(False, help=help, type=None, metavar="", is_flag=True))


def declared(options: type[object] | object) -> Iterator[Option]:
    """The declared options of a dataclass, in order."""
    for field in dataclasses.fields(cast(Any, options)):
        facts = field.metadata[_KEY]
        default = None if field.default is dataclasses.MISSING else field.default
        yield Option(name=field.name, default=default, **facts)


def _field(default: object, **facts: object) -> object:
    metadata = {_KEY: {"choices": (), **facts}}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
