"""Builds an argparse parser from declared options, and the declaring dataclass from its result.

Parsing does not import Beam. Unknown options of the job go to the runner.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Collection, Sequence
from typing import Any, NoReturn, Protocol, TypeVar

from beamlabel import __version__
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.check import checked
from beamlabel.pipeline.options.command_table import command_listing
from beamlabel.pipeline.options.declare import Option, declared
from beamlabel.pipeline.options.job_options import GROUPS, JobOptions, LoadingOptions, job_options
from beamlabel.pipeline.process.messages import answer, tell
from beamlabel.transforms.secrets.say import say
from beamlabel.transforms.storage.billing import set_billing_project

DESCRIPTION = "Labels and embeds images in bulk: image URIs in, labels, scores and embeddings out."

_T = TypeVar("_T")

_OF_STORAGE = "Beam's file system options, such as --s3_endpoint_url URL, are accepted too."

# The start of the message for a missing option, by argparse and by ``checked``.
_MISSING = "the following arguments are required"

# Beam's option for a label (key=value) of a Dataflow job. It resembles a misspelling of --labels.
_LABEL_OF_JOB = "--label"


class Parser(argparse.ArgumentParser):
    """Raises ``UsageError`` instead of ending the process; reports an error if it cannot write its help."""

    _words: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        if message.startswith(_MISSING):
            # The option is rather misspelled or abbreviated than missing.
            known = [name for name in self._option_string_actions if name.startswith("--")]
            unknown = [word for word in self._words if word.split("=", 1)[0] not in known]
            _check_misspelt(unknown, known, with_abbreviations=True)
        raise UsageError(message)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses as argparse does, and suggests a name for an unknown option."""
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            _check_misspelt(rest, [name for name in self._option_string_actions if name.startswith("--")])
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses as argparse does, and accepts dashes for underscores in option names."""
        self._words = underscored(sys.argv[1:] if args is None else args)
        return super().parse_known_args(self._words, namespace)

    def print_help(self, file: Any = None) -> None:
        if file is None:
            answer(self.format_help())
        else:
            super().print_help(file)


class _Version(argparse.Action):
    """Prints the version; reports an error if it cannot, as ``Parser`` does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        answer(f"beamlabel {__version__}\n")
        parser.exit()


class _TakesArguments(Protocol):
    """A parser or an argument group; argparse has no public name for both."""

    def add_argument(self, *names: str, **facts: Any) -> argparse.Action: ...


def add_options(parser: _TakesArguments, options: type[Any], only: Collection[str] | None = None) -> None:
    """Adds the options of a dataclass, or ``only`` those with these names, to a parser or argument group."""
    for one in declared(options):
        if only is None or one.name in only:
            _add(parser, one)


def _add(parser: _TakesArguments, one: Option) -> None:
    text = one.help.replace("%", "%%")
    if one.is_positional:
        parser.add_argument(one.name, metavar=one.metavar, help=text, nargs="+" if one.is_list else None)
        return
    facts: dict[str, Any] = {"help": text, "default": one.default, "dest": one.name}
    if one.is_flag:
        facts["action"] = "store_true"
    else:
        facts["type"] = one.type.parse if one.type else str
        facts["required"] = one.is_required
        if one.choices:
            facts |= {"choices": one.choices, "type": str}
        else:
            facts["metavar"] = one.metavar
    if one.is_list:
        # argparse extends a copy of the default, and needs a list for that.
        facts |= {"action": "append"} if one.is_single else {"action": "extend", "nargs": "+"}
        facts["default"] = []
    parser.add_argument(f"--{one.name}", **facts)


def values_of(options: type[_T], namespace: argparse.Namespace) -> _T:
    """Fills the dataclass with parsed values; an option that was not added keeps its default."""
    found = vars(namespace)
    values = {}
    for one in declared(options):
        if one.name in found:
            value = found[one.name]
            values[one.name] = tuple(value) if one.is_list else value
    return options(**values)


def parse_command(
    options: type[_T], argv: Sequence[str], *, command: str, description: str, epilog: str
) -> _T:
    """Parses a subcommand's arguments into the dataclass that declares them, and applies ``--billing_project``.

    Raises:
      UsageError: a missing argument, a bad value, or an unknown option.
      SystemExit: after ``--help``.
    """
    parser = Parser(
        prog=f"beamlabel {command}",
        description=description,
        epilog=f"{epilog} {_OF_STORAGE}",
        formatter_class=argparse.RawDescriptionHelpFormatter
        if "\n" in description
        else argparse.HelpFormatter,
        allow_abbrev=False,
    )
    add_options(parser, options)
    add_payer(parser)
    found = parser.parse_args(argv)
    set_billing_project(found.billing_project)
    return values_of(options, found)


def add_payer(parser: _TakesArguments) -> None:
    """Adds the job's ``--billing_project`` to the parser of a subcommand."""
    add_options(parser, LoadingOptions, only={"billing_project"})


def make_parser() -> argparse.ArgumentParser:
    """The job's argument parser."""
    parser = Parser(
        prog="beamlabel",
        usage="%(prog)s --input PATTERN --module HANDLE --output DIR [option ...]\n"
        "       %(prog)s COMMAND ...",
        description=f"{DESCRIPTION}\n\nother commands (each has its own --help):\n{command_listing()}",
        epilog="Options not listed here go to the Beam runner, such as --runner FlinkRunner.\n"
        "Exit codes: 0 done, 1 too many failures, 2 wrong usage or the output exists, 3 the job failed,\n"
        "4 out of time, 75 the output is locked by another run, 130/143 cancelled.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show program's version number and exit")
    for title, _, options in GROUPS:
        add_options(parser.add_argument_group(title), options)
    return parser


def underscored(argv: Sequence[str]) -> list[str]:
    """The words with ``--batch-size`` spelled ``--batch_size``: no option of beamlabel or Beam has other dashes.

    A word with a blank in its name is a value, as it is for argparse.
    """
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    for place, word in enumerate(words[:end]):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if " " not in name:
                words[place] = f"--{name.replace('-', '_')}{equals}{value}"
    return words


def with_minus_joined(argv: Sequence[str]) -> list[str]:
    """Joins ``--input_range -1,1`` into one word, because argparse takes ``-1,1`` for an option."""
    words: list[str] = []
    for word in underscored(argv):
        if words and words[-1] == "--input_range" and word.startswith("-1"):
            words[-1] += "=" + word
        else:
            words.append(word)
    return words


def _with_labels_of_jobs(argv: Sequence[str]) -> list[str]:
    """Renames Beam's ``--labels key=value``, which Airflow's operator always passes, to Beam's ``--label``."""
    words: list[str] = []
    for word in argv:
        is_value = bool(words) and words[-1] == "--labels"
        value = word if is_value else word.removeprefix("--labels=")
        if re.fullmatch(r"[a-z][a-z0-9_-]*=[a-z0-9_-]*", value) and (is_value or value != word):
            words[len(words) - is_value :] = [f"{_LABEL_OF_JOB}={value}"]
        else:
            words.append(word)
    return words


def parse(argv: Sequence[str]) -> tuple[JobOptions, list[str]]:
    """Parses the command line into the job's options and the remaining arguments for the runner.

    ``--labels key=value`` is read as the runner's ``--label``. Write a labels file with such a name as ``./key=value``.

    Raises:
      UsageError: a missing option, a bad value, or a misspelled option.
      SystemExit: after ``--help`` and ``--version``.
    """
    found, rest = make_parser().parse_known_args(_with_labels_of_jobs(with_minus_joined(argv)))
    check_rest(rest, {one.name for one in job_options()})
    groups = {field: values_of(options, found) for _, field, options in GROUPS}
    try:
        return checked(JobOptions(**groups)), rest
    except UsageError as error:
        if str(error).startswith(_MISSING):
            known = [f"--{one.name}" for one in job_options()]
            _check_misspelt(rest, known, with_abbreviations=True)
        raise


def check_rest(rest: Sequence[str], names: Collection[str]) -> None:
    """Refuses arguments that cannot be options of a runner.

    Args:
      rest: the remaining arguments.
      names: names of the known options.

    Raises:
      UsageError: an argument is a misspelled option, or belongs to no option.
    """
    _check_misspelt(rest, ["--help", "--version", *(f"--{name}" for name in names)])
    for before, argument in zip(["", *rest], rest, strict=False):
        has_value = before.startswith("--") and "=" not in before
        if not argument.startswith("--") and not has_value:
            advice = "options begin with --" if argument.startswith("-") else "name inputs with --input"
            raise UsageError(f"{argument!r} belongs to no option; {advice}")


def _check_misspelt(rest: Sequence[str], known: Sequence[str], *, with_abbreviations: bool = False) -> None:
    for argument in rest:
        name = argument.split("=", 1)[0]
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if with_abbreviations and not close and len(name) > len("--x"):
            close = [one for one in known if one.startswith(name)]
        if name.startswith("--") and close and name != _LABEL_OF_JOB:
            raise UsageError(f"{name}: no such option; did you mean {close[0]}?")


def usage(error: UsageError, command: str = "beamlabel") -> None:
    """Prints a usage error as argparse does, and refers to the command's ``--help``."""
    tell(f"error: {error}")
    say(f"Try '{command} --help'.")
