"""Describes, in a compacted output, the input and the failures of the original runs.

``--skip_labeled`` and ``--tombstones`` use this in place of the runs' own manifests. If the runs disagree, the entry is
left out: that costs another try, but never causes a wrong tombstone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from beamlabel.pipeline.current.outputs import Output
from beamlabel.pipeline.current.read import wanted
from beamlabel.pipeline.current.select import Selection
from beamlabel.pipeline.earlier.wanted import tried_with
from beamlabel.pipeline.job.settings import input_names
from beamlabel.transforms.rows.metadata_keys import PREPROCESSING_ID

_LIMITS = ("max_bytes", "max_pixels")


def joint_input(outputs: Sequence[Output]) -> dict[str, Any]:
    """``input`` and ``base_dir`` of all runs together, in the form of a manifest's ``options``.

    ``input`` is empty if the runs read theirs with different options, since no patterns then name all of it.
    """
    options = [output.manifest["options"] for output in outputs]
    first = options[0]
    alike = all(one.get(name) == first.get(name) for one in options for name in input_names())
    bases = {one.get("base_dir") for one in options}
    if not alike or (len(bases) > 1 and first.get("input_format") != "images"):
        return {"input": []}
    patterns = [pattern for one in options for pattern in one["input"]]
    is_known = all(one["input"] for one in options)
    return {"input": list(dict.fromkeys(patterns)) if is_known else []}


def tried(selection: Selection) -> dict[str, Any]:
    """How the original runs tried the failures that are kept, in the form of a manifest; see ``tried_with``.

    Versions and preprocessing are given if all runs agree on them; a limit is the lowest of all runs.
    """
    kept = [source.output for source in selection.failed if wanted(selection.is_failed, source).any()]
    runs: list[Mapping[str, Any]] = [tried_with(output.manifest) for output in kept]
    if not runs:
        return {"versions": {}, "metadata": {}, "options": {}}
    versions = dict(runs[0].get("versions", {}))
    for run in runs[1:]:
        versions = {
            name: value for name, value in versions.items() if run.get("versions", {}).get(name) == value
        }
    preprocessing = {run["metadata"].get(PREPROCESSING_ID) for run in runs}
    limits = {name: [run.get("options", {}).get(name, 0) for run in runs] for name in _LIMITS}
    return {
        "versions": versions,
        "metadata": {PREPROCESSING_ID: preprocessing.pop()} if len(preprocessing) == 1 else {},
        "options": {name: min(values) for name, values in limits.items()},
    }
