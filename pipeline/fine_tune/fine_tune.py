"""``beamlabel train --fine_tune``: rows with a truth → a trained network → a module, with its record and report."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.fine_tune.layers import trained_from
from beamlabel.pipeline.fine_tune.model import augmentation_facts
from beamlabel.pipeline.fine_tune.network import Network
from beamlabel.pipeline.fine_tune.open_network import open_network
from beamlabel.pipeline.fine_tune.options import DEFAULT, FineTuneOptions
from beamlabel.pipeline.fine_tune.pixels import Pixels, decoded_pixels
from beamlabel.pipeline.fine_tune.session import Session, Trained
from beamlabel.pipeline.fine_tune.start import Base, Start, load_module, start_of
from beamlabel.pipeline.fine_tune.state import Workplace, open_workplace
from beamlabel.pipeline.fine_tune.statistics import WORDS
from beamlabel.pipeline.fine_tune.task import Task
from beamlabel.pipeline.output.lock import locked
from beamlabel.pipeline.output.place import output_place
from beamlabel.pipeline.report.thumbnails import load_options_of
from beamlabel.pipeline.train.findings.evaluate_head import findings_of, right
from beamlabel.pipeline.train.findings.findings import SPLITS, Findings
from beamlabel.pipeline.train.findings.suspects import suspects_of
from beamlabel.pipeline.train.findings.temperature import probabilities, temperature_of
from beamlabel.pipeline.train.head.fit_head import class_weights
from beamlabel.pipeline.train.module.base_module import description_of
from beamlabel.pipeline.train.module.export import ExportBase
from beamlabel.pipeline.train.rows.rows import TrainingRows, check_splits, gather_rows
from beamlabel.pipeline.train.rows.split import TEST, TRAIN, VALIDATION
from beamlabel.pipeline.train.train import TrainOptions, check_is_new, facts_of, truth_sha256, write_module

Progress = Callable[[str], None]


def fine_tune(
    options: TrainOptions, tuning: FineTuneOptions, progress: Progress = lambda text: None
) -> Findings:
    """Trains a network and a head, and writes them as a module with ``_TRAINING.json`` and ``_report.html``.

    SIGINT ends the training and writes the best epoch. Nothing is written before the first epoch is done, or after
    SIGTERM.

    Args:
      options: rows, truth, head and result, as for a head alone.
      tuning: options of the training.
      progress: receives lines of progress.

    Raises:
      UsageError: outputs, truth, module or ``--output`` are unsuitable, or the module cannot be trained.
      Cancelled: a signal came before there was anything to write.
      OSError, ValueError: a file cannot be read or written.
    """
    check_is_new(options.result.output)
    rows = gather_rows(options.rows, options.truth)
    _tell_rows(rows, progress)
    base = load_module(rows.base, options.rows)
    network = open_network(base.module)
    trained = trained_from(network, tuning.fine_tune_from)
    progress(
        f"{base.module.resolved.handle}: {network.source}, training {sum(trained)} of {len(trained)} variables"
    )
    output = output_place(options.result.output)
    with locked(output):
        place = open_workplace(output, _identity(rows, base, options, tuning), tuning.if_exists)
        try:
            return _in(place, base, network, trained, rows, options, tuning, progress)
        except BaseException:
            progress(f"not finished; rerun with --if_exists resume to continue from {place.directory}")
            raise


def _in(
    place: Workplace,
    base: Base,
    network: Network,
    trained: list[bool],
    rows: TrainingRows,
    options: TrainOptions,
    tuning: FineTuneOptions,
    progress: Progress,
) -> Findings:
    load = load_options_of(rows.base.options, rows.base.preprocessing, options.rights)
    decode = dataclasses.replace(load.decode, height=base.module.height, width=base.module.width)
    progress(f"fetching and decoding {len(rows)} images into {place.directory} (skipping any already there)")
    with _bar() as bar:
        pixels = decoded_pixels(rows, dataclasses.replace(load, decode=decode), place.directory, bar)
    usable, rows = usable_rows(rows, pixels)
    for problem in pixels.problems:
        progress(f"{problem.count} {problem.what}: {', '.join(problem.examples)}")
    task = Task(pixels.array, usable, rows, _weights(rows, options), tuning.batch_size, rows.seed)
    start = start_of(base, network, task, options.head, progress)
    session = Session(
        base.module, network, trained, task, start.head, place, tuning, options.head.epochs, progress
    )
    found = session.run()
    progress("evaluating")
    findings, temperature = _findings(
        session, found, start, base, network, trained, rows, options, tuning, progress
    )
    head = found.model.head("sigmoid" if rows.multi_label else "softmax", temperature)
    described = dataclasses.replace(
        description_of(base.module, rows.base, head, rows.classes), features_of=""
    )
    export = ExportBase(
        features=network.infer,
        height=base.module.height,
        width=base.module.width,
        input_range=base.module.input_range,
        embedding_dim=head.kernel.shape[0],
    )
    write_module(export, head, described, findings, rows, options, progress)
    place.remove()
    return findings


def _findings(
    session: Session,
    found: Trained,
    start: Start,
    base: Base,
    network: Network,
    trained: list[bool],
    rows: TrainingRows,
    options: TrainOptions,
    tuning: FineTuneOptions,
    progress: Progress,
) -> tuple[Findings, float]:
    """The findings of the trained network for all rows, and the temperature that divides its logits."""
    logits = session.logits()
    validation, test = (np.flatnonzero(rows.split == split) for split in (VALIDATION, TEST))
    temperature, _ = temperature_of(logits[validation], rows.targets[validation])
    said = probabilities(logits / np.float32(temperature), rows.multi_label)
    is_right = right(said, rows.targets)
    alone = start.right
    unseen = np.flatnonzero(rows.split != TRAIN)
    findings = findings_of(
        said,
        rows,
        temperature=temperature,
        uncalibrated=probabilities(logits[test], rows.multi_label),
        suspects=suspects_of(said[unseen], rows.chosen(unseen), options.result.max_suspects),
        history=found.history,
        facts={
            **facts_of(rows, options.rows, options.truth),
            "fine_tuning": {
                **_facts(base, network, trained, found, tuning),
                "temperature": temperature,
                "class_weights": options.head.class_weights,
                "head_alone": {"validation": _mean(alone[validation]), "test": _mean(alone[test])},
            },
        },
    )
    _tell_gain(_mean(is_right[validation]), _mean(alone[validation]), progress)
    return findings, temperature


def usable_rows(rows: TrainingRows, pixels: Pixels) -> tuple[np.ndarray, TrainingRows]:
    """The rows whose images are available, and their positions among all rows.

    Raises:
      UsageError: too few rows are left.
    """
    places = np.flatnonzero(pixels.usable)
    left, problems = rows.chosen(places), [*rows.problems, *pixels.problems]
    sizes = np.bincount(left.split, minlength=len(SPLITS))
    if not (sizes[TRAIN] and sizes[VALIDATION]):
        why = "; ".join(f"{one.count} {one.what}" for one in pixels.problems)
        raise UsageError(
            f"--fine_tune: only {len(places)} of {len(rows)} images are available: {sizes[TRAIN]} for training, "
            f"{sizes[VALIDATION]} for validation; {why}"
        )
    check_splits(left.split, left.targets, left.classes, problems)
    return places, dataclasses.replace(left, problems=tuple(dict.fromkeys(problems)))


def _weights(rows: TrainingRows, options: TrainOptions) -> np.ndarray:
    weights = class_weights(rows, options.head)
    return (weights / weights[rows.split == TRAIN].mean(dtype=np.float64)).astype(np.float32)


def _identity(
    rows: TrainingRows, base: Base, options: TrainOptions, tuning: FineTuneOptions
) -> dict[str, Any]:
    """Everything that decides the result of a training, by option name."""
    given = dataclasses.asdict(tuning)
    del given["if_exists"]
    module = base.module
    return {
        "truth": truth_sha256(rows),
        "module": module.resolved.fingerprint,
        "features": "" if module.features is None else module.features.name,
        "size": [module.height, module.width, *module.input_range],
        "epochs": options.head.epochs,
        "class_weights": options.head.class_weights,
        "seed": rows.seed,
        **given,
    }


def _facts(
    base: Base, network: Network, trained: list[bool], found: Trained, tuning: FineTuneOptions
) -> dict[str, Any]:
    """The training's entries in the record."""
    return {
        "module": {"handle": base.module.resolved.handle, "fingerprint": base.module.resolved.fingerprint},
        "graph": network.source,
        "variables": {"trained": sum(trained), "all": len(trained)},
        "batch_statistics": {"moved": WORDS[found.mode], **found.decision},
        "epochs": {"done": len(found.history), "best": found.best_epoch, "planned": found.epochs},
        "interrupted": found.is_interrupted,
        "augmentation": augmentation_facts() if tuning.augment == DEFAULT else [],
        "repeatable": network.is_repeatable,
        "options": {
            name: value
            for name, value in dataclasses.asdict(tuning).items()
            if name not in ("fine_tune", "if_exists")
        },
    }


def _mean(is_right: np.ndarray) -> float | None:
    return float(is_right.mean()) if len(is_right) else None


def _tell_rows(rows: TrainingRows, progress: Progress) -> None:
    sizes = np.bincount(rows.split, minlength=len(SPLITS))
    told = ", ".join(f"{size} {name}" for size, name in zip(sizes, SPLITS, strict=True))
    progress(f"{len(rows)} of {rows.read} rows, {len(rows.classes)} classes: {told}")
    for problem in rows.problems:
        examples = f": {', '.join(problem.examples)}" if problem.examples else ""
        progress(f"{problem.count} {problem.what}{examples}")


def _tell_gain(tuned: float | None, alone: float | None, progress: Progress) -> None:
    if tuned is None or alone is None:
        return
    progress(f"validation accuracy {tuned:.1%}; {alone:.1%} with a head alone, on the original network")
    if tuned < alone:
        progress("the head alone is better: train without --fine_tune or with another --learning_rate")


def _bar() -> Any:
    """A progress bar of decoded images on standard error; call it with the numbers of done and all images."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        def __call__(self, done: int, of: int) -> None:
            self.total = of
            self.update(done - self.n)

    return Bar(
        unit=" images", desc="decoding", leave=False, dynamic_ncols=True, file=sys.stderr, disable=None
    )
