"""CPU time of one image by stage: ``python benchmarks/stages.py --module HANDLE``.

Runs the job in this process and adds up the CPU time of each stage's own threads (``CLOCK_THREAD_CPUTIME_ID``) between
two batches, without the first few and the last few. The rest of the process's CPU time is that of Beam and Python. For
the engine "litert", which works in threads that can be timed. With ``--module stub``, an engine that computes nothing
runs over JPEGs of 16 × 16 pixels, which leaves only the overhead.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memory import tiny
from photos import photographs, write_list

# Stage, module, function; the time of a stage within another is subtracted from the outer stage.
STAGES = (
    ("read", "beamlabel.transforms.loading.load_images", "fetch"),
    ("decode", "beamlabel.transforms.decoding.decode", "decode_jpeg"),
    ("resize", "beamlabel.transforms.decoding.decode", "fit"),
    ("top k, predictions", "beamlabel.transforms.inference.predict", "_predict_batch"),
    ("sink", "beamlabel.transforms.writing.unit_rows", "UnitRows.add"),
    ("sink", "beamlabel.transforms.writing.write_unit", "_write_timed"),
)
LITERT_STAGES = (
    ("inference", "ai_edge_litert.interpreter", "Interpreter.invoke"),
    ("copy into and out of the engine", "beamlabel.transforms.inference.litert_engine", "_Interpreter.run"),
)
STUB_STAGES = (("inference", "stub_job", "compute"),)
STUB = "stub"
_WORK = ("read", "decode", "resize", "inference")
_SKIPPED_BATCHES = 3


@dataclass
class Clock:
    """CPU seconds by stage, and the process's CPU seconds after each batch."""

    spent: Counter[str] = field(default_factory=Counter)
    batches: list[tuple[int, float, float, Counter[str]]] = field(default_factory=list)
    _inner: threading.local = field(default_factory=threading.local)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps the function: adds its CPU time to the stage and subtracts it from the calling stage."""

        def call(*arguments: Any, **keywords: Any) -> Any:
            outer = getattr(self._inner, "seconds", 0.0)
            self._inner.seconds = 0.0
            begin = time.thread_time()
            try:
                return function(*arguments, **keywords)
            finally:
                whole = time.thread_time() - begin
                with self._lock:
                    self.spent[stage] += whole - self._inner.seconds
                self._inner.seconds = outer + whole

        return call

    def batch_done(self, count: int) -> None:
        """Records the state after a batch."""
        with self._lock:
            self.batches.append((count, time.perf_counter(), time.process_time(), self.spent.copy()))


def instrument(clock: Clock, stages: Iterable[tuple[str, str, str]]) -> None:
    """Wraps the functions of all stages with the clock."""
    for stage, module_name, path in stages:
        holder: Any = importlib.import_module(module_name)
        *parents, name = path.split(".")
        for parent in parents:
            holder = getattr(holder, parent)
        setattr(holder, name, clock.timed(stage, getattr(holder, name)))
    predict = importlib.import_module("beamlabel.transforms.inference.predict")
    whole = predict.predict_blocks

    def predict_and_note(images: Any, *arguments: Any) -> Any:
        outcomes = whole(images, *arguments)
        clock.batch_done(len(images))
        return outcomes

    predict.predict_blocks = predict_and_note


def report(clock: Clock, stages: Iterable[tuple[str, str, str]]) -> str:
    """Returns a Markdown table: milliseconds of CPU an image, and the share of the whole."""
    first, last = clock.batches[_SKIPPED_BATCHES - 1], clock.batches[-_SKIPPED_BATCHES - 1]
    images = sum(count for count, *_ in clock.batches[_SKIPPED_BATCHES:-_SKIPPED_BATCHES])
    whole = last[2] - first[2]
    spent = {stage: seconds - first[3][stage] for stage, seconds in last[3].items()}
    unseen = [stage for stage, *_ in stages if not spent.get(stage)]
    if unseen:
        raise RuntimeError(f"the job did not call the functions of {unseen}; correct STAGES")
    spent["Beam, threads, everything else"] = whole - sum(spent.values())
    lines = ["| stage | CPU ms an image | share |", "| --- | ---: | ---: |"]
    lines += [
        f"| {stage} | {seconds / images * 1e3:.3f} | {seconds / whole:.1%} |"
        for stage, seconds in spent.items()
    ]
    work = sum(spent[stage] for stage in _WORK)
    lines += [f"| **all** | {whole / images * 1e3:.3f} | |", ""]
    lines += [
        f"{images} images, {images / (last[1] - first[1]):.0f} a second, "
        f"{whole / (last[1] - first[1]):.2f} cores busy; "
        f"neither reading, decoding nor inference: {(whole - work) / images * 1e3:.3f} ms, {1 - work / whole:.1%}."
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", required=True)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument(
        "--list", type=Path, help="a list of images, instead of photographs made from the sample"
    )
    options, rest = parser.parse_known_args()
    is_stub = options.module == STUB
    stages = (*STAGES, *(STUB_STAGES if is_stub else LITERT_STAGES))
    with tempfile.TemporaryDirectory() as scratch:
        uris = options.list
        if uris is None:
            uris = Path(scratch) / "list.txt"
            paths = (
                tiny(Path(scratch) / "tiny", 400) if is_stub else photographs(Path(scratch), options.images)
            )
            write_list(uris, paths, options.images)
        from beamlabel.pipeline.options.parser import parse
        from beamlabel.pipeline.run import run
        from beamlabel.pipeline.runners.import_beam import leave_out_connectors
        from beamlabel.transforms.worker.allocators import choose_arrow_allocator

        # Before the timed modules are imported: otherwise they would choose differently from the job.
        choose_arrow_allocator()
        leave_out_connectors([])
        from stub_job import stubbed

        argv = ["--input", str(uris), "--module", options.module, "--output", f"{scratch}/out", *rest]
        clock = Clock()
        with stubbed() if is_stub else nullcontext():
            instrument(clock, stages)
            if run(*parse(argv)):
                raise SystemExit("the job failed")
    print(report(clock, stages))


if __name__ == "__main__":
    main()
