"""``--retry_failures RUN``: restricts a run to the references that failed in an earlier run."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beamlabel.pipeline import layout
from beamlabel.pipeline.earlier.indexes import LocalIndex, write_index
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.preflight import Inputs
from beamlabel.pipeline.options.declare import Option, declared
from beamlabel.pipeline.options.job_options import EarlierRunOptions, InputOptions
from beamlabel.pipeline.output.manifest import parse_result
from beamlabel.pipeline.output.own_json import FAILURE, DamagedError, parsed
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.key_index import KeyIndexWriter, key
from beamlabel.transforms.loading.web.allowed_schemes import LOCAL
from beamlabel.transforms.records import Reason
from beamlabel.transforms.row_batches import EMBEDDINGS
from beamlabel.transforms.secrets.text import public_uri
from beamlabel.transforms.shapes import Kind, check
from beamlabel.transforms.storage.errors import is_user_error
from beamlabel.transforms.storage.inside import RealDirectory, below
from beamlabel.transforms.storage.uris import scheme


@dataclass(frozen=True)
class FailedReferences:
    """The failures of an earlier run, to be tried again.

    Attributes:
      output: of that run.
      manifest: of that run.
      ref_ids: of the failed references.
    """

    output: str
    manifest: dict[str, Any]
    ref_ids: frozenset[str]

    def index(self, directory: Path) -> LocalIndex:
        """The ids as an index."""
        with KeyIndexWriter(directory) as writer:
            writer.add(key(ref_id) for ref_id in self.ref_ids)
            return write_index(writer, directory / "only")


def failed_references(run: str, reasons: Iterable[str]) -> FailedReferences:
    """Reads the failures of an earlier run.

    Args:
      run: its output.
      reasons: the only reasons to include; none for all.

    Raises:
      UsageError: there is no run at the output, or no such reason.
    """
    reasons = frozenset(reasons)
    if unknown := reasons - {reason.value for reason in Reason}:
        known = ", ".join(reason.value for reason in Reason)
        raise UsageError(f"--reasons {min(unknown)}: no such reason; the reasons are {known}")
    ids: set[str] = set()
    try:
        output = storage.absolute(run).rstrip("/")
        path = storage.join(output, layout.MANIFEST)
        manifest = parse_result(path, storage.read_bytes(path))
        if manifest is None:
            raise FileNotFoundError
        for file in manifest["files"]:
            if file["kind"] == "failures":
                path = below(output, file["name"])
                for line in storage.read_bytes(path).splitlines():
                    failure = parsed(path, line, FAILURE)
                    if not reasons or failure["reason"] in reasons:
                        ids.add(failure["ref_id"])
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(f"--retry_failures {run!r}: no run of beamlabel found there") from error
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
    if RealDirectory(output).is_same(failed.output):
        raise UsageError(
            f"--retry_failures {options.retry_failures!r} is the output of this run; use another --output"
        )
    return failed


def inputs_to_retry(
    options: InputOptions, failed: FailedReferences, schemes: Collection[str] | None = None
) -> InputOptions:
    """The options that name the references; without ``--input``, those of the earlier run.

    An option that the user has set is kept.

    Args:
      options: as the user set them.
      failed: the failures of the earlier run.
      schemes: the only allowed schemes of places that the user has not named; None: all.

    Raises:
      UsageError: the earlier run has read no images, its options are damaged, or its input is of another scheme.
    """
    if options.input:
        return options
    earlier = failed.manifest["options"]
    if earlier.get("input_format") == EMBEDDINGS:
        raise UsageError(
            f"--retry_failures {failed.output!r} is the output of `beamlabel relabel`, which reads no images; name the "
            "images of the outputs that it relabeled with --input"
        )
    values = vars(options).copy()
    for one in declared(InputOptions):
        if values[one.name] == one.default and one.name in earlier:
            path = storage.join(failed.output, layout.MANIFEST)
            values[one.name] = _as_given(one, earlier[one.name], path)
    for place in (*values["input"], values["base_dir"]):
        if schemes is not None and place is not None and (scheme(place) or LOCAL) not in schemes:
            raise UsageError(
                f"--allowed_schemes {','.join(schemes)}: {public_uri(place)}, which the run {failed.output!r} read, "
                "has another scheme; to use it, name it with --input or --base_dir"
            )
    return InputOptions(**values)


def _as_given(option: Option, value: Any, path: str) -> Any:
    """Parses the value of an option in a manifest as if it were on the command line."""
    if value is None and option.default is None:
        return None
    given = value if option.is_list and isinstance(value, list) else [value]
    try:
        if option.type is None or (option.choices and value not in option.choices):
            raise ValueError(f"{value!r}")
        check(given, [Kind("a text or a number", lambda one: type(one) in (str, int, float))])
        parsed = tuple(option.type.parse(str(one)) for one in given)
    except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
        raise DamagedError(f"{path} is damaged: options.{option.name}: {error}") from error
    return parsed if option.is_list else parsed[0]


def check_same_inputs(failed: FailedReferences, inputs: Inputs) -> None:
    """Refuses inputs that have changed since the earlier run, because a row number would name another reference.

    Raises:
      UsageError: a file has changed; the message names it.
    """
    earlier = {file["path"]: file for file in failed.manifest["input_files"]}
    for file in inputs.files:
        before = earlier.get(file.path)
        if before is not None and (file.size, file.version) != (before["size"], before["version"]):
            raise UsageError(
                f"--retry_failures {failed.output!r}: {file.path} has changed since that run, so row numbers do not "
                "identify its failed rows"
            )
