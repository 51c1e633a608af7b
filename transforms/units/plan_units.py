"""Input files → work units."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam

from beamlabel.transforms.inputs.packed_refs import RefSpiller
from beamlabel.transforms.inputs.sources.registry import source_of
from beamlabel.transforms.inputs.sources.source import Planned, SourceOptions
from beamlabel.transforms.records import InputFile, WorkUnit
from beamlabel.transforms.storage.billing import set_billing_project
from beamlabel.transforms.units.shared_units import MAX_SHARED_FILES, is_small, plan_ahead, share
from beamlabel.transforms.worker.versions import SameVersionsCoder

_Numbered = tuple[int, InputFile]

beam.coders.registry.register_coder(WorkUnit, SameVersionsCoder)


def plan_files(files: Iterable[_Numbered], options: SourceOptions) -> Iterator[WorkUnit]:
    """Cuts numbered input files into units that tile each of them; ``limit`` counts across all files.

    Small files that follow each other share units of at least as many references as there are files, up to
    ``MAX_SHARED_FILES``.
    """
    files = list(files)
    if len(files) > 1:
        rows = min(max(len(files), options.min_unit_rows), MAX_SHARED_FILES)
        options = dataclasses.replace(options, min_unit_rows=rows)
    planned = _plan_limited(files, options) if options.limit is not None else plan_ahead(files, options)
    yield from share(planned, options)


def _plan_limited(files: Iterable[_Numbered], options: SourceOptions) -> Iterator[Planned]:
    remaining = options.limit
    assert remaining is not None
    for number, file in files:
        for planned in source_of(file.format).plan(number, file, options, remaining):
            yield planned
            remaining -= planned.references


def groups(files: Sequence[_Numbered], *, in_order: bool) -> list[tuple[_Numbered, ...]]:
    """The files that are planned one after the other: all ``in_order``, else small ones that may share units."""
    if in_order:
        return [tuple(files)]
    found: list[list[_Numbered]] = []
    for numbered in files:
        small = is_small(numbered[1])
        if small and found and is_small(found[-1][-1][1]) and len(found[-1]) < MAX_SHARED_FILES:
            found[-1].append(numbered)
        else:
            found.append([numbered])
    return [tuple(group) for group in found]


class _PlanUnitsDoFn(beam.DoFn):
    def __init__(self, options: SourceOptions, staging_dir: str) -> None:
        self._options = options
        self._staging_dir = staging_dir

    def setup(self) -> None:
        set_billing_project(self._options.billing_project)

    def start_bundle(self) -> None:
        self._spiller = RefSpiller(self._staging_dir)

    def process(self, files: tuple[tuple[int, InputFile], ...]) -> Iterator[WorkUnit]:
        yield from map(self._spiller.spill, plan_files(files, self._options))


class PlanUnits(beam.PTransform):
    """Input files → work units.

    Files are planned in parallel, except small ones that may share units, and all files under a limit, which has to
    count them in order.

    Args:
      files: the input files, in order.
      options: how inputs become references.
      staging_dir: where the references lie that units do not carry; a local folder or a URI.
    """

    def __init__(self, files: Sequence[InputFile], options: SourceOptions, staging_dir: str) -> None:
        super().__init__()
        self._files = tuple(enumerate(files))
        self._options = options
        self._staging_dir = staging_dir

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[WorkUnit]:
        elements = groups(self._files, in_order=self._options.limit is not None)
        cut = _PlanUnitsDoFn(self._options, self._staging_dir)
        return (
            pbegin
            | "InputFiles" >> beam.Create(elements, reshuffle=False)
            | "Cut" >> beam.ParDo(cut).with_output_types(WorkUnit)
        )
