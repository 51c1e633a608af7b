"""The program's commands beside the labeling job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A sub-command.

    Attributes:
      module: has ``main(argv) -> int``, which returns the exit code, or ends the process by itself. It raises
        ``UsageError`` for a mistake, and imports nothing heavy before it has parsed its arguments. If it ``is_job`` it
        has ``parse(argv)`` in its place, which gives the job's options, and the words that are left for the runner.
      help: one line.
      is_job: whether the command is the labeling job with other options.
      answers: whether what it finds goes to stdout.
    """

    module: str
    help: str
    is_job: bool = False
    answers: bool = False


_FOLDER = "beamlabel.pipeline.commands"

COMMANDS = {
    "inspect": Command(
        f"{_FOLDER}.inspect", "what a module is, takes and gives, and how fast it runs here", answers=True
    ),
    "fetch": Command(f"{_FOLDER}.fetch", "copy a module from a hub to a folder or a bucket"),
    "verify": Command(f"{_FOLDER}.verify", "check a result: files, hashes, counts, conservation", answers=True),
    "evaluate": Command(f"{_FOLDER}.evaluate", "top-1, top-5, the worst classes and the wrong images", answers=True),
    "train": Command(f"{_FOLDER}.train", "classes of your own: a head on the embeddings of outputs"),
    "report": Command(f"{_FOLDER}.report", "write the report of a published result"),
    "relabel": Command(f"{_FOLDER}.relabel", "classes of an own module for the rows of earlier outputs", is_job=True),
    "compact": Command(f"{_FOLDER}.compact", "one output with the current rows of many nights"),
    "diff": Command(f"{_FOLDER}.diff", "what differs between two results, or two sets of nights", answers=True),
    "publish": Command(f"{_FOLDER}.publish", "publish what a detached run has committed"),
}  # fmt: skip


def command_listing() -> str:
    """The commands, a line each, for ``--help``."""
    width = max(map(len, COMMANDS))
    return "".join(f"  {name:<{width}}  {command.help}\n" for name, command in COMMANDS.items())
