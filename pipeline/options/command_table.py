"""The program's commands beside the labeling job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A sub-command.

    Attributes:
      module: its ``main(argv) -> int`` returns the exit code or ends the process. ``main`` raises ``UsageError`` for a
        user's mistake, and imports nothing heavy before it has parsed its arguments. If ``is_job``, the module has
        ``parse(argv)`` instead, which returns the job's options and the remaining arguments for the runner.
      help: one line.
      is_job: whether the command is the labeling job with other options.
      answers: whether the command writes its result to stdout.
    """

    module: str
    help: str
    is_job: bool = False
    answers: bool = False


_MODULES = "beamlabel.pipeline.commands"

COMMANDS = {
    "inspect": Command(
        f"{_MODULES}.inspect", "show a module's inputs, outputs, and speed on this machine", answers=True
    ),
    "fetch": Command(f"{_MODULES}.fetch", "copy a module from a hub to a directory or bucket"),
    "verify": Command(f"{_MODULES}.verify", "check a result: files, hashes, counts, conservation", answers=True),
    "evaluate": Command(f"{_MODULES}.evaluate", "compare a result with the truth, image by image", answers=True),
    "train": Command(f"{_MODULES}.train", "train a head for your own classes on the embeddings of outputs"),
    "report": Command(f"{_MODULES}.report", "write the report of a published result"),
    "relabel": Command(f"{_MODULES}.relabel", "classify the rows of earlier outputs with your own module", is_job=True),
    "compact": Command(f"{_MODULES}.compact", "merge the current rows of many nights into one output"),
    "diff": Command(f"{_MODULES}.diff", "compare two results, or two sets of nights", answers=True),
    "publish": Command(f"{_MODULES}.publish", "publish a detached run that has committed"),
}  # fmt: skip


def command_listing() -> str:
    """The commands for ``--help``, one per line."""
    width = max(map(len, COMMANDS))
    return "".join(f"  {name:<{width}}  {command.help}\n" for name, command in COMMANDS.items())
