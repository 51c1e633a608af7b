"""``--retry_failures RUN``: the references that an earlier run has failed, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.preflight import Inputs
from beamlabel.pipeline.job.skip_labeled import LocalIndex, finished
from beamlabel.pipeline.options.parser import make_parser
from beamlabel.pipeline.output.manifest import read_manifest
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.key_index import KeyIndexWriter, key
from beamlabel.transforms.records import Reason
from beamlabel.transforms.storage.errors import is_mistake

# What says which references there are, and where. Without --input, that of the earlier run counts.
_INPUT_OPTIONS = (
    "input", "input_format", "uri_column", "image_column", "keep_columns", "base_dir", "limit", "sample",
)  # fmt: skip


@dataclass(frozen=True)
class FailedReferences:
    """The failures of an earlier run, to be tried again.

    Attributes:
      output: that run's.
      manifest: that run's.
      ref_ids: of what failed.
    """

    output: str
    manifest: dict[str, Any]
    ref_ids: frozenset[str]

    def index(self, folder: Path) -> LocalIndex:
        """The ids as an index."""
        with KeyIndexWriter(folder) as writer:
            writer.add(key(ref_id) for ref_id in self.ref_ids)
            return finished(writer, folder / "only")


def failed_references(run: str, reasons: Iterable[str]) -> FailedReferences:
    """Reads what an earlier run has failed.

    Args:
      run: its output.
      reasons: the only ones that count; none for all.

    Raises:
      UsageError: no run was there, or there is no such reason.
    """
    reasons = frozenset(reasons)
    if unknown := reasons - {reason.value for reason in Reason}:
        known = ", ".join(reason.value for reason in Reason)
        raise UsageError(f"--reasons {min(unknown)}: no such reason; there are {known}")
    ids: set[str] = set()
    try:
        output = storage.absolute(run).rstrip("/")
        manifest = read_manifest(output)
        if manifest is None:
            raise UsageError(f"--retry_failures {run!r}: no run of beamlabel was there")
        for file in manifest["files"]:
            if file["kind"] == "failures":
                for line in storage.read_bytes(storage.join(output, *file["name"].split("/"))).splitlines():
                    failure = json.loads(line)
                    if not reasons or failure["reason"] in reasons:
                        ids.add(failure["ref_id"])
    except (OSError, ValueError) as error:
        if not is_mistake(error):
            raise
        raise UsageError(f"--retry_failures {run!r}: {error}") from error
    return FailedReferences(output, manifest, frozenset(ids))


def failures_to_retry(options: Any, output: str) -> FailedReferences | None:
    """What ``--retry_failures`` names, and sets the inputs to that run's; None without that option.

    Raises:
      UsageError: see ``failed_references``; or that run is the output.
    """
    if not options.retry_failures:
        return None
    failed = failed_references(options.retry_failures, options.reasons)
    if failed.output == output:
        raise UsageError(f"--retry_failures {options.retry_failures!r} is the output: name another one")
    take_inputs(options, failed)
    return failed


def take_inputs(options: Any, failed: FailedReferences) -> None:
    """Without ``--input``: sets the options that name the references to those of the earlier run.

    An option that the user has given stays.
    """
    if options.input:
        return
    earlier = failed.manifest["options"]
    parser = make_parser()
    for name in _INPUT_OPTIONS:
        if getattr(options, name) == parser.get_default(name):
            setattr(options, name, earlier[name])


def check_same_inputs(failed: FailedReferences, inputs: Inputs) -> None:
    """Refuses inputs that have changed since: a line's number would name another reference.

    Raises:
      UsageError: it names the file.
    """
    earlier = {file["path"]: file for file in failed.manifest["input_files"]}
    for file in inputs.files:
        before = earlier.get(file.path)
        if before is not None and (file.size, file.version) != (before["size"], before["version"]):
            raise UsageError(
                f"--retry_failures {failed.output!r}: {file.path} has changed since that run, so its rows cannot "
                "be told by their numbers"
            )
