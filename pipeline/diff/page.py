"""The page of a comparison: self-contained, with the available thumbnails."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from importlib import resources
from typing import Any

from beamlabel import __version__
from beamlabel.pipeline import layout
from beamlabel.pipeline.options.fetch_rights import FetchRights
from beamlabel.pipeline.output.manifest import read_manifest
from beamlabel.pipeline.report.data import kept_thumbnails
from beamlabel.pipeline.report.page import fill, own_file
from beamlabel.pipeline.report.thumbnails import fetched_thumbnails
from beamlabel.transforms import storage
from beamlabel.transforms.writing.unit_summary import MAX_LABEL, cut

_TEXTS = ("uri", "ref_id", "detail")


def diff_page(found: Mapping[str, Any], *, fetch: bool, base_dir: str | None, rights: FetchRights) -> str:
    """The page, a function of findings and thumbnails.

    Thumbnails come from the reports of the outputs; with ``fetch``, missing ones are fetched.

    Args:
      found: result of ``compare``.
      fetch: whether images may be fetched.
      base_dir: directory of relative references; None: as in their run.
      rights: permissions for fetching.
    """
    rows = [row for of_kind in found["examples"].values() for row in of_kind]
    thumbnails = _thumbnails(rows, base_dir, rights if fetch else None)
    examples = {
        kind: [_shown(row, thumbnails) for row in of_kind] for kind, of_kind in found["examples"].items()
    }
    style = own_file("report.css") + _own_file("diff.css")
    script = own_file("common.js") + _own_file("diff.js")
    title = f"{found['a']['outputs'][-1]} and {found['b']['outputs'][-1]} · beamlabel"
    data = {**found, "examples": examples, "version": __version__}
    return fill(_own_file("diff.html"), style, script, title, data)


def _thumbnails(
    rows: list[dict[str, Any]], base_dir: str | None, rights: FetchRights | None
) -> dict[tuple[str, str], str]:
    """(output, reference) → JPEG in base64; without ``rights`` nothing is fetched."""
    by_output: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_output[_output(row)].append(row)
    thumbnails: dict[tuple[str, str], str] = {}
    for output, of_output in by_output.items():
        manifest = read_manifest(output)
        if manifest is None:
            continue
        kept = kept_thumbnails(storage.join(output, layout.REPORT), run_id=manifest["run_id"])
        found = {row["ref_id"]: kept[cut(row["ref_id"])] for row in of_output if cut(row["ref_id"]) in kept}
        lacking = [row for row in of_output if row["uri"] and row["ref_id"] not in found]
        if rights is not None and lacking:
            found |= fetched_thumbnails(lacking, manifest, base_dir, rights)
        thumbnails |= {(output, ref_id): picture for ref_id, picture in found.items()}
    return thumbnails


def _output(row: Mapping[str, Any]) -> str:
    """The output to show an image from: the one in B, unless the image failed there and A has it."""
    a, b = row["outputs"]
    is_better = b is not None and (row["b_reason"] is None or a is None)
    return str(b if is_better else a)


def _shown(row: Mapping[str, Any], thumbnails: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    texts = {name: None if row[name] is None else cut(row[name]) for name in _TEXTS}
    labels = {
        name: None if row[name] is None else cut(row[name], MAX_LABEL) for name in ("a_label", "b_label")
    }
    return {**row, **texts, **labels, "thumbnail": thumbnails.get((_output(row), row["ref_id"]))}


def _own_file(name: str) -> str:
    return resources.files("beamlabel.pipeline.diff").joinpath(name).read_text(encoding="utf-8")
