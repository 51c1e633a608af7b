"""``--retry_failures RUN``: the references that an earlier run has failed, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beamlabel.pipeline.earlier.indexes import LocalIndex, write_index
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.preflight import Inputs
from beamlabel.pipeline.options.declare import declared
from beamlabel.pipeline.options.job_options import EarlierRunOptions, InputOptions
from beamlabel.pipeline.output.manifest import is_result, read_manifest
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.key_index import KeyIndexWriter, key
from beamlabel.transforms.records import Reason
from beamlabel.transforms.row_batches import EMBEDDINGS
from beamlabel.transforms.storage.errors import is_user_error
from beamlabel.transforms.storage.inside import RealFolder, below


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
            return write_index(writer, folder / "only")


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
        if not is_result(manifest):
            raise UsageError(
                f"--retry_failures {run!r}: its _MANIFEST.json is damaged, or none of beamlabel's"
            )
        for file in manifest["files"]:
            if file["kind"] == "failures":
                for line in storage.read_bytes(below(output, file["name"])).splitlines():
                    failure = json.loads(line)
                    if not reasons or failure["reason"] in reasons:
                        ids.add(failure["ref_id"])
    except (OSError, ValueError) as error:
        if not is_user_error(error):
            raise
        raise UsageError(f"--retry_failures {run!r}: {error}") from error
    return FailedReferences(output, manifest, frozenset(ids))


def failures_to_retry(options: EarlierRunOptions, output: str) -> FailedReferences | None:
    """The failures that ``--retry_failures`` names; None without that option.

    Raises:
      UsageError: see ``failed_references``; or that run is the output.
    """
    if not options.retry_failures:
        return None
    failed = failed_references(options.retry_failures, options.reasons)
    if RealFolder(output).is_same(failed.output):
        raise UsageError(f"--retry_failures {options.retry_failures!r} is the output: name another one")
    return failed


def inputs_to_retry(options: InputOptions, failed: FailedReferences) -> InputOptions:
    """The options that name the references: without ``--input`` those of the earlier run.

    An option that the user has given stays.
    """
    if options.input:
        return options
    earlier = failed.manifest["options"]
    if earlier.get("input_format") == EMBEDDINGS:
        raise UsageError(
            f"--retry_failures {failed.output!r} is the output of `beamlabel relabel`, which reads no images: name by "
            "--input those that the outputs before it were made of"
        )
    values = vars(options).copy()
    for one in declared(InputOptions):
        if values[one.name] == one.default:
            values[one.name] = tuple(earlier[one.name]) if one.is_list else earlier[one.name]
    return InputOptions(**values)


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
