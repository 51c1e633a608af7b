"""Plans and opens text tables like the job, without a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from beamlabel.pipeline.job.preflight import Inputs, check_inputs
from beamlabel.pipeline.options.parser import parse
from beamlabel.transforms.inputs.selection import Selection, SelectionOptions
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.records import ImageRef, UnitEnd, WorkUnit
from beamlabel.transforms.units.open_unit import open_unit
from beamlabel.transforms.units.plan_units import plan_files


def checked(*arguments: object, output: object = "/nowhere/out") -> Inputs:
    """The job's checks of its inputs before it runs."""
    options, _ = parse([*map(str, arguments), "--module", "demo", "--output", str(output)])
    return check_inputs(options.inputs, options.output)


def planned(inputs: Inputs, **options: Any) -> tuple[list[WorkUnit], SourceOptions]:
    source = SourceOptions(**{"base_dir": "/", "columns": inputs.columns, **options})
    return list(plan_files(enumerate(inputs.files), source)), source


def opened(units: list[WorkUnit], options: SourceOptions) -> list[tuple[Any, ...]]:
    """Row, URI and kept values of each reference; row and reason of each invalid one."""
    rows: list[tuple[Any, ...]] = []
    for unit in units:
        *elements, end = open_unit(unit, options, Selection(options.selection or SelectionOptions()))
        assert isinstance(end, UnitEnd)
        assert end.sent + end.skipped == len(elements)
        for element in elements:
            row = int(element.ref_id.rpartition("#")[2])
            if isinstance(element, ImageRef):
                assert element.unit_id == unit.unit_id
                rows.append((row, element.uri, *(value[0].as_py() for value in element.passthrough)))
            else:
                rows.append((row, element.reason.value))
    return rows


def read(path: Path, *arguments: object, **options: Any) -> list[tuple[Any, ...]]:
    """All references of a file; see ``opened``."""
    return opened(*planned(checked("--input", path, *arguments), **options))
