"""The program's commands beside the labeling job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A sub-command.

    Attributes:
      module: has ``main(argv) -> int``, which returns the exit code, or ends the process by itself. It raises
        ``UsageError`` for a mistake, and imports nothing heavy before it has parsed its arguments.
      help: one line.
    """

    module: str
    help: str


COMMANDS = {
    "inspect": Command("pipeline.inspect_command", "what a module is, takes and gives, and how fast it runs here"),
    "fetch": Command("pipeline.fetch_command", "copy a module from a hub to a folder or a bucket"),
    "verify": Command("pipeline.verify_command", "check a result: files, hashes, counts, conservation"),
    "evaluate": Command("pipeline.evaluate_command", "top-1, top-5 and a table of classes, against the truth"),
    "report": Command("pipeline.report_command", "write the report of a published result"),
    "publish": Command("pipeline.publish_command", "publish what a detached run has committed"),
}  # fmt: skip


def command_listing() -> str:
    """The commands, a line each, for ``--help``."""
    width = max(map(len, COMMANDS))
    return "".join(f"  {name:<{width}}  {command.help}\n" for name, command in COMMANDS.items())
