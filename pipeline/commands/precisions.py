"""Compares a module in float32, bfloat16 and int8 on this machine and on the user's images."""

from __future__ import annotations

import dataclasses
import importlib.util
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.preflight import check_inputs
from beamlabel.pipeline.job.prepare_module import module_process, prepare_artifact
from beamlabel.pipeline.job.settings import derived_options, input_images
from beamlabel.pipeline.options.job_options import (
    INT8,
    EarlierRunOptions,
    InferenceOptions,
    InputOptions,
    JobOptions,
    LoadingOptions,
    ModuleOptions,
    OutputOptions,
    RunOptions,
)
from beamlabel.pipeline.quantize.prepare import check_nncf, quantize, take_sample
from beamlabel.transforms.extras.install import install_extra
from beamlabel.transforms.inference.artifact import BFLOAT16, FLOAT32, Artifact, ModuleError
from beamlabel.transforms.inference.engines import Engine, Outputs, open_engine
from beamlabel.transforms.module_process.prepare import subject_of
from beamlabel.transforms.module_process.process import ModuleProcess
from beamlabel.transforms.quantize.agreement import Agreement, agreement

_ROUNDS = 9
_BATCH = 64


@dataclass(frozen=True)
class Row:
    """The measurements of one precision.

    Attributes:
      precision: the requested one.
      computed_by: engine and precision that really compute on this machine; empty if none does.
      images_per_second: of the module alone, from pixels to numbers, on all cores: the median over rounds in which the
        precisions take turns.
      speedup: ``images_per_second`` relative to float32.
      same_class, sure_same_class, cosine: see ``Agreement``.
      note: the reason why nothing was measured, or the setting of the quantization.
    """

    precision: str
    computed_by: str = ""
    images_per_second: float | None = None
    speedup: float | None = None
    same_class: float | None = None
    sure_same_class: float | None = None
    cosine: float | None = None
    note: str = ""


def compare(module: ModuleOptions, inference: InferenceOptions, inputs: InputOptions) -> list[Row]:
    """Measures and compares the precisions.

    Args:
      module: the module.
      inference: the number of calibration images, and the size of a batch.
      inputs: the images.

    Raises:
      UsageError: the module or the images are not available, or there are too few images.
    """
    if not inputs.input:
        raise UsageError("--precisions needs --input, the images to compare on")
    float32 = dataclasses.replace(inference, precision=FLOAT32, engine="auto")
    with tempfile.TemporaryDirectory(prefix="beamlabel-") as nowhere:
        output = OutputOptions(output=nowhere)
        options = JobOptions(
            inputs=inputs,
            earlier=EarlierRunOptions(),
            module=module,
            inference=float32,
            loading=LoadingOptions(),
            output=output,
            run=RunOptions(),
        )
        found = check_inputs(inputs, output)
        with module_process(module) as process:
            exact = prepare_artifact(module, float32, option="MODULE", process=process)
            bfloat16 = _bfloat16(module, inference, process)
        derived = derived_options(options, exact)
        sample = take_sample(input_images(options, found, derived), inference.calibration_images)
    artifacts: dict[str, Artifact | str] = {FLOAT32: exact, BFLOAT16: bfloat16}
    note = ""
    try:
        check_nncf()
        search = quantize(exact, sample, derived.predict.scores)
        artifacts[INT8] = (
            search.artifact or f"no setting passes: {'; '.join(one.text() for one in search.trials)}"
        )
        if search.chosen is not None:
            note = search.trials[search.chosen].setting
    except UsageError as error:
        artifacts[INT8] = str(error)
    made = {name: one for name, one in artifacts.items() if isinstance(one, Artifact)}
    try:
        # TensorFlow may compute it in this process, so the deadline applies here too.
        engines, answers, rates = process.in_thread(
            lambda: _run(made, sample.test, inference.batch_size), subject_of(module.module)
        )
    except ModuleError as error:
        raise UsageError(f"MODULE: {error}") from error
    rows = []
    for name, artifact in artifacts.items():
        if isinstance(artifact, str):
            rows.append(Row(name, note=artifact))
            continue
        compared = agreement(answers[FLOAT32], answers[name], derived.predict.scores)
        by = engines[name].computed_by
        rows.append(_row(name, by, rates[name], rates[FLOAT32], compared, note if name == INT8 else ""))
    return rows


def _row(name: str, by: str, rate: float, exact_rate: float, compared: Agreement, note: str) -> Row:
    return Row(
        name,
        by,
        rate,
        rate / exact_rate,
        compared.same_class,
        compared.sure_same_class,
        compared.cosine,
        note,
    )


def _bfloat16(module: ModuleOptions, inference: InferenceOptions, process: ModuleProcess) -> Artifact | str:
    """The artifact, or the reason why there is none."""
    if importlib.util.find_spec("openvino") is None:
        return f"needs OpenVINO: {install_extra('openvino')}"
    wanted = dataclasses.replace(inference, precision=BFLOAT16, engine="auto")
    try:
        return prepare_artifact(module, wanted, option="MODULE", process=process)
    except UsageError as error:
        return str(error)


def _run(
    artifacts: dict[str, Artifact], images: Sequence[np.ndarray], batch_size: int
) -> tuple[dict[str, Engine], dict[str, Outputs], dict[str, float]]:
    engines = {name: open_engine(one.path, one.sha256) for name, one in artifacts.items()}
    answers = {name: _answers(engine, images) for name, engine in engines.items()}
    return engines, answers, _rates(engines, images, batch_size)


def _answers(engine: Engine, images: Sequence[np.ndarray]) -> Outputs:
    parts = [engine(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
    logits = (
        None if parts[0][0] is None else np.concatenate([part[0] for part in parts if part[0] is not None])
    )
    features = (
        None if parts[0][1] is None else np.concatenate([part[1] for part in parts if part[1] is not None])
    )
    return logits, features


def _rates(engines: dict[str, Engine], images: Sequence[np.ndarray], batch_size: int) -> dict[str, float]:
    batch = [images[place % len(images)] for place in range(batch_size)]
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(_ROUNDS + 1):
        for name, engine in engines.items():
            begin = time.perf_counter()
            engine(batch)
            taken[name].append(time.perf_counter() - begin)
    # The first round warms up.
    return {name: batch_size / float(np.median(times[1:])) for name, times in taken.items()}
