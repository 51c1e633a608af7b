"""Input files → work units."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from beamlabel.transforms.inputs.packed_refs import RefSpiller
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.records import InputFile, WorkUnit
from beamlabel.transforms.storage.billing import set_billing_project
from beamlabel.transforms.units.shared_units import (
    MAX_SHARED_FILES,
    is_small,
    plan_ahead,
    plan_limited,
    share,
)
from beamlabel.transforms.worker.daemon_pool import DaemonPool
from beamlabel.transforms.worker.versions import SameVersionsCoder

# Groups of files that one worker plans at a time, groups that wait for it, and references that it writes at a time.
_PLANNERS = 8
_AHEAD = 64
_WRITERS = 32

_Numbered = tuple[int, InputFile]

beam.coders.registry.register_coder(WorkUnit, SameVersionsCoder)


def plan_files(files: Iterable[_Numbered], options: SourceOptions) -> Iterator[WorkUnit]:
    """Cuts numbered input files into units that tile each of them; ``limit`` counts across all files.

    Small consecutive files share units of at least as many references as there are files, up to ``MAX_SHARED_FILES``.
    """
    files = list(files)
    if len(files) > 1:
        rows = min(max(len(files), options.min_unit_rows), MAX_SHARED_FILES)
        options = dataclasses.replace(options, min_unit_rows=rows)
    plan = plan_ahead if options.limit is None else plan_limited
    planned = plan(files, options)
    yield from share(planned, options)


def groups(files: Sequence[_Numbered], *, in_order: bool) -> list[tuple[_Numbered, ...]]:
    """The files that are planned one after the other: all if ``in_order``, else small ones that may share units."""
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
    """Plans the groups of files of a bundle at the same time: on a bucket, planning is waiting.

    Args:
      options: how inputs become references.
      staging_dir: directory of staged references.
      groups: the number of groups of files.
    """

    def __init__(self, options: SourceOptions, staging_dir: str, groups: int) -> None:
        self._options = options
        self._staging_dir = staging_dir
        self._groups = groups

    def setup(self) -> None:
        set_billing_project(self._options.billing_project)
        self._planners = DaemonPool(_PLANNERS, "plan")
        self._writers = DaemonPool(_WRITERS, "stage-references")

    def start_bundle(self) -> None:
        self._waiting = deque[Future[list[WorkUnit]]]()

    def process(self, files: tuple[_Numbered, ...]) -> Iterator[WorkUnit]:
        self._waiting.append(self._planners.submit(self._plan, files))
        while self._waiting and (len(self._waiting) > _AHEAD or self._waiting[0].done()):
            yield from self._planners.result(self._waiting.popleft())

    def finish_bundle(self) -> Iterator[WindowedValue]:
        window = GlobalWindow()
        while self._waiting:
            for unit in self._planners.result(self._waiting.popleft()):
                yield WindowedValue(unit, MIN_TIMESTAMP, (window,))

    def teardown(self) -> None:
        self._planners.close()
        self._writers.close()

    def _plan(self, files: tuple[_Numbered, ...]) -> list[WorkUnit]:
        spiller = RefSpiller(self._staging_dir, self._groups)
        return list(spiller.spill_all(plan_files(files, self._options), self._writers))


class PlanUnits(beam.PTransform):
    """Input files → work units.

    Files are planned in parallel: spread over the workers, and by several threads in each. Small files that may share
    units are planned together. With a limit, all files are planned together, since the limit counts them in order.

    Args:
      files: the input files, in order.
      options: how inputs become references.
      staging_dir: directory of the references that units do not carry; local or a URI.
    """

    def __init__(self, files: Sequence[InputFile], options: SourceOptions, staging_dir: str) -> None:
        super().__init__()
        self._files = tuple(enumerate(files))
        self._options = options
        self._staging_dir = staging_dir

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[WorkUnit]:
        elements = groups(self._files, in_order=self._options.limit is not None)
        cut = _PlanUnitsDoFn(self._options, self._staging_dir, max(len(elements), 1))
        files = pbegin | "InputFiles" >> beam.Create(elements, reshuffle=False)
        if len(elements) > 1:
            files = files | "Spread" >> beam.Reshuffle()
        return files | "Cut" >> beam.ParDo(cut).with_output_types(WorkUnit)
