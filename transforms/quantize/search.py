"""Finds the fastest setting that passes, measured on this machine, and caches the result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from beamlabel.transforms.inference import engines, openvino_engine
from beamlabel.transforms.inference.artifact import (
    INT8,
    LITERT,
    OPENVINO,
    Artifact,
    ModelSpec,
    ModuleError,
    Quantization,
    pack,
    unpack,
)
from beamlabel.transforms.inference.engines import EngineSession, Outputs
from beamlabel.transforms.inference.int8_payload import pack_int8
from beamlabel.transforms.module.compile import read_artifact, write_artifact
from beamlabel.transforms.quantize.agreement import Agreement, agreement
from beamlabel.transforms.quantize.nncf_model import Quantizer, versions
from beamlabel.transforms.quantize.settings import ROUNDS, Setting
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.worker import cpu

_LOGGER = get_logger(__name__)

# Raise this if the same module and images would yield another model, or pass where they failed before.
_VERSION = 1
# Rates are measured in turns, on this many images each, and the medians count: other load on the machine affects all.
_ROUNDS, _ROUND_IMAGES = 9, 32
_BATCH = 64
# Rates closer than this count as equal; then the more accurate model wins.
_SAME_RATE = 0.03


@dataclass(frozen=True)
class Trial:
    """One tried setting.

    Attributes:
      setting: the setting as text.
      float32_layers: see ``Quantization``.
      agreement: agreement with float32 on the test images; None if NNCF cannot quantize the module with this setting.
      speedup: images per second of CPU time, relative to the default float32 engine.
      failure: why the model cannot be used; empty if it passes and is faster than float32.
    """

    setting: str
    float32_layers: tuple[str, ...] = ()
    agreement: Agreement | None = None
    speedup: float | None = None
    failure: str = ""

    def text(self) -> str:
        """The trial on one line."""
        parts = [f"{self.setting}:"]
        if self.agreement is not None:
            parts.append(f"{self.agreement.text()}, {self.speedup:.2f} x the rate of float32;")
        parts.append(self.failure or "passes")
        return " ".join(parts)


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
      artifact: the artifact of the fastest setting that passes; None if none does.
      chosen: the index of its trial.
      trials: all trials, in order.
    """

    artifact: Artifact | None
    chosen: int | None
    trials: tuple[Trial, ...]

    def table(self) -> str:
        """The trials, one per line."""
        return "\n".join(f"  {trial.text()}" for trial in self.trials)


def search(
    artifact: Artifact,
    calibration: Sequence[np.ndarray],
    test: Sequence[np.ndarray],
    scores: str,
    cache_dir: str | os.PathLike[str],
) -> Found:
    """Quantizes a module that was compiled for float32, in ever more careful ways until one passes.

    Args:
      artifact: the module, for LiteRT.
      calibration: images to quantize with, uint8[height, width, 3] each.
      test: other images to compare on, uint8[height, width, 3] each.
      scores: the function from logits to scores, see ``top_k.scores_of``.
      cache_dir: directory for the artifact and the trials; a search with the same arguments on the same kind of CPU is
        not repeated.

    Raises:
      ModuleError: NNCF or OpenVINO is not installed, or LiteRT does not run the module.
    """
    spec, payload = unpack(Path(artifact.path).read_bytes())
    if spec.engine != LITERT:
        raise ModuleError(
            f"{INT8} is not available for this module, because LiteRT cannot express it: {spec.fallback}"
        )
    calibrated_with = images_sha256(calibration)
    key = {
        "version": _VERSION,
        "artifact": artifact.sha256,
        "calibration": calibrated_with,
        "test": images_sha256(test),
        "scores": scores,
        "cpu": cpu.model(),
        "versions": versions(),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    directory = Path(cache_dir).expanduser().absolute()
    found = _cached(directory, digest)
    if found is None:
        _LOGGER.info("Quantizing with %d images and testing on %d others", len(calibration), len(test))
        found = _Search(spec, payload, calibrated_with, calibration, test, scores).run(directory, digest)
    return found


def images_sha256(images: Iterable[np.ndarray]) -> str:
    """SHA-256 over the pixels of images, in hex."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(repr(image.shape).encode())
        digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


class _Search:
    def __init__(
        self,
        spec: ModelSpec,
        payload: memoryview,
        calibrated_with: str,
        calibration: Sequence[np.ndarray],
        test: Sequence[np.ndarray],
        scores: str,
    ) -> None:
        self._spec, self._calibrated_with, self._test, self._scores = spec, calibrated_with, test, scores
        self._quantizer = Quantizer(spec, payload, calibration)
        self._float32 = engines.open_payload(spec, payload)
        self._expected = answers(self._float32, test)

    def run(self, directory: Path, digest: str) -> Found:
        """Runs the rounds and writes the result to the cache."""
        trials: list[Trial] = []
        passed: dict[int, tuple[bytes, ModelSpec]] = {}
        for settings in ROUNDS:
            for setting in settings:
                trial, packed = self._tried(setting)
                _LOGGER.info("int8: %s", trial.text())
                if packed is not None and not trial.failure:
                    passed[len(trials)] = packed
                trials.append(trial)
            if passed:
                break
        artifact, chosen = None, best_of({place: trials[place] for place in passed})
        if chosen is not None:
            data, spec = passed[chosen]
            path = directory / f"int8-{digest}.beamlabel"
            write_artifact(path, data)
            artifact = Artifact(str(path), hashlib.sha256(data).hexdigest(), spec)
        found = Found(artifact, chosen, tuple(trials))
        write_artifact(_table_path(directory, digest), json.dumps(_to_json(found), indent=1).encode())
        return found

    def _tried(self, setting: Setting) -> tuple[Trial, tuple[bytes, ModelSpec] | None]:
        try:
            model, left = self._quantizer.quantized(setting)
            spec = dataclasses.replace(
                self._spec,
                engine=OPENVINO,
                precision=INT8,
                quantization=Quantization(
                    self._calibrated_with, left, hashlib.sha256(model.xml + model.weights).hexdigest()
                ),
            )
            session, probes = openvino_engine.open_int8_model(spec, model)
        except ModuleError as error:
            return Trial(setting.text(), failure=str(error)), None
        compared = agreement(self._expected, answers(session, self._test), self._scores)
        speedup = self._speedup(session)
        failure = "; ".join(compared.shortfalls())
        if not failure and speedup <= 1:
            failure = "it is not faster than float32 on this machine"
        trial = Trial(setting.text(), left, compared, speedup, failure)
        return trial, (pack(spec, pack_int8(model, probes)), spec)

    def _speedup(self, session: EngineSession) -> float:
        images = [self._test[place % len(self._test)] for place in range(_ROUND_IMAGES)]
        costs = cpu_seconds([lambda: self._float32.run(images), lambda: session.run(images)])
        return costs[0] / costs[1]


def best_of(passed: dict[int, Trial]) -> int | None:
    """The index of the fastest passing trial; among equally fast ones, of the most accurate."""
    fastest = max((trial.speedup or 0 for trial in passed.values()), default=0.0)

    def nearness(place: int) -> tuple[float, float]:
        compared = passed[place].agreement
        return (0.0, 0.0) if compared is None else (compared.cosine or 0.0, compared.same_class or 0.0)

    as_fast = [place for place, trial in passed.items() if (trial.speedup or 0) >= fastest * (1 - _SAME_RATE)]
    return max(as_fast, key=nearness, default=None)


def answers(session: EngineSession, images: Sequence[np.ndarray]) -> Outputs:
    """Logits and features of any number of images, float32[N, D] each or None."""
    parts = [session.run(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
    whole = [None if first is None else np.concatenate([part[place] for part in parts])  # type: ignore[misc]
             for place, first in enumerate(parts[0])]  # fmt: skip
    return whole[0], whole[1]


def cpu_seconds(runs: Sequence[Callable[[], Any]]) -> list[float]:
    """The CPU time of each call in seconds: the median over several rounds, in which the calls alternate."""
    for run in runs:
        run()
    taken: list[list[float]] = [[] for _ in runs]
    for _ in range(_ROUNDS):
        for run, times in zip(runs, taken, strict=True):
            begin = time.process_time()
            run()
            times.append(time.process_time() - begin)
    return [float(np.median(times)) for times in taken]


def _table_path(directory: Path, digest: str) -> Path:
    return directory / f"int8-{digest}.json"


def _cached(directory: Path, digest: str) -> Found | None:
    """The result of an earlier search; None if there is none or some of its files are missing."""
    try:
        value = json.loads(_table_path(directory, digest).read_bytes())
        trials = tuple(_trial(one) for one in value["trials"])
        chosen = value["chosen"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if chosen is None:
        return Found(None, None, trials)
    artifact = read_artifact(directory / f"int8-{digest}.beamlabel")
    if artifact is None or artifact.sha256 != value["sha256"]:
        return None
    return Found(artifact, chosen, trials)


def _to_json(found: Found) -> dict[str, Any]:
    return {
        "chosen": found.chosen,
        "sha256": None if found.artifact is None else found.artifact.sha256,
        "trials": [dataclasses.asdict(trial) for trial in found.trials],
    }


def _trial(value: dict[str, Any]) -> Trial:
    compared = value["agreement"]
    return Trial(
        value["setting"],
        tuple(value["float32_layers"]),
        None if compared is None else Agreement(**compared),
        value["speedup"],
        value["failure"],
    )
