"""Runs one training, from the treatment of batch statistics to the best epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from beamlabel.pipeline.fine_tune.model import TrainedModel, build_model, compile_model, use_16_bits
from beamlabel.pipeline.fine_tune.network import FROZEN, MODULE, Network
from beamlabel.pipeline.fine_tune.options import FineTuneOptions
from beamlabel.pipeline.fine_tune.state import Workplace
from beamlabel.pipeline.fine_tune.statistics import WORDS, choose_mode, modes_to_try, movement_of
from beamlabel.pipeline.fine_tune.task import Task, batches
from beamlabel.pipeline.fine_tune.training import train
from beamlabel.pipeline.process.cancellation import Cancelled
from beamlabel.pipeline.train.findings.findings import Epoch
from beamlabel.pipeline.train.findings.temperature import loss_of
from beamlabel.pipeline.train.head.repeatable import repeatable
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.module.freeze import to_float
from beamlabel.transforms.module.hub_module import HubModule
from beamlabel.transforms.own_module.head import Head

# Enough steps to compare treatments of batch statistics: moving averages need some to settle.
_TRIAL_STEPS = 32


@dataclass(frozen=True, eq=False)
class Trained:
    """The result of a training.

    Attributes:
      model: the model after its best epoch.
      mode: treatment of batch statistics; ``decision`` has the reason.
      history: the epochs.
      best_epoch: number of the epoch that was kept; ``epochs``: number of epochs planned.
      is_interrupted: whether a signal ended the training.
    """

    model: TrainedModel
    mode: str
    decision: dict[str, Any]
    history: tuple[Epoch, ...]
    best_epoch: int
    epochs: int
    is_interrupted: bool


class Session:
    """A training of a network and a head.

    Args:
      module: the module of the network.
      network: the network, which is trained in place.
      trained: whether each of its variables is trained.
      task: images and truth.
      head: the initial head.
      place: directory with the state of the training.
      options: options of the training.
      epochs: number of epochs; None: set by the number of images.
      progress: receives lines of progress.
    """

    def __init__(
        self,
        module: HubModule,
        network: Network,
        trained: list[bool],
        task: Task,
        head: Head,
        place: Workplace,
        options: FineTuneOptions,
        epochs: int | None,
        progress: Callable[[str], None],
    ) -> None:
        self._module, self._network, self._trained, self._task = module, network, trained, task
        self._head, self._place, self._options, self._progress = head, place, options, progress
        self._epochs = epochs or task.default_epochs
        self._is_scaled = use_16_bits(options.mixed_precision)

    def run(self) -> Trained:
        """Trains to the end or until SIGINT; the model is then that of the best epoch.

        Raises:
          Cancelled: SIGTERM came, and ``--if_exists resume`` continues; or a signal came before an epoch was done.
        """
        with repeatable(self._task.seed, is_repeatable=self._network.is_repeatable):
            return self._run()

    def _run(self) -> Trained:
        if not self._place.state.mode:
            mode, decision = self._choose_mode()
            self._place.save(mode=mode, decision=decision)
        state = self._place.state
        how = "" if state.mode == MODULE else f"; they move {WORDS[state.mode]}"
        self._progress(f"batch statistics: {state.decision['why']}{how}")
        self.model = self._model(state.mode, self._steps * self._epochs)
        is_interrupted = False
        try:
            train(self.model, self._task, self._place, self._epochs, self._options.patience)
        except (Cancelled, KeyboardInterrupt) as sent:
            if not self._place.state.best or (isinstance(sent, Cancelled) and sent.ends_work()):
                raise
            is_interrupted = True
        state = self._place.state
        if is_interrupted:
            self._progress(
                f"cancelled after {len(state.history)} of {self._epochs} epochs: "
                f"keeping the best, epoch {state.best_epoch}"
            )
        self.model.keras.load_weights(self._place.directory / state.best)
        return Trained(
            self.model,
            state.mode,
            state.decision,
            state.history,
            state.best_epoch,
            self._epochs,
            is_interrupted,
        )

    def logits(self) -> np.ndarray:
        """float32[N, C]: the logits of all rows at inference."""
        data = batches(self._task, np.arange(len(self._task.rows)), shuffled=False)
        with repeatable(self._task.seed, is_repeatable=self._network.is_repeatable):
            return np.asarray(self.model.keras.predict(data, verbose=0), np.float32)

    @property
    def _steps(self) -> int:
        return self._task.steps(len(self._task.train))

    def _model(self, mode: str, steps: int) -> TrainedModel:
        size = self._module.height, self._module.width
        head = self._start(mode)
        model = build_model(
            self._network, self._trained, mode, size, self._module.input_range, head, self._options
        )
        self._network.follow(steps)
        compile_model(model, self._options, steps, self._task.rows.multi_label, is_16_bits=self._is_scaled)
        return model

    def _start(self, mode: str) -> Head:
        """The initial head: the trained one, or zeros if these have less loss in training mode.

        With batch statistics of the current images the features may differ much from those that the head was trained
        on, such as in a network that never saw such images. Its large weights would have to be unlearned first.
        """
        if mode == FROZEN or not self._network.statistics:
            return self._head
        places = self._task.train[: self._task.batch_size]
        before = self._network.values()
        try:
            features = self._network.train[mode](self._values(places)).numpy()
        finally:
            self._network.assign(before)
        logits, truth = self._head.logits(features), self._task.rows.targets[places]
        if loss_of(logits, truth) <= loss_of(np.zeros_like(logits), truth):
            return self._head
        return dataclasses.replace(
            self._head, kernel=np.zeros_like(self._head.kernel), bias=np.zeros_like(self._head.bias)
        )

    def _values(self, places: np.ndarray) -> Any:
        """The images of rows, as input of the network."""
        return to_float(tensorflow().constant(self._task.images(places)), self._module.input_range)

    def _choose_mode(self) -> tuple[str, dict[str, Any]]:
        """The treatment of batch statistics, and the reason."""
        if self._options.fine_tune_from is not None:
            return FROZEN, {
                "why": "--fine_tune_from keeps the first layers and therefore the batch statistics unchanged"
            }
        movement = movement_of(self._network, self._values(self._task.train[: self._task.batch_size]))
        modes, why = modes_to_try(self._network, movement, self._steps * self._epochs)
        if len(modes) > 1:
            self._progress(f"{why}: trying {len(modes)} workarounds for {_TRIAL_STEPS} steps each")
        mode, scores = choose_mode(modes, self._trial)
        return mode, {"why": why, **({"trials": scores} if scores else {})}

    def _trial(self, mode: str) -> tuple[float, float]:
        """Validation accuracy and loss after a few steps; then restores the variables."""
        before = self._network.values()
        try:
            places = self._task.train
            most = _TRIAL_STEPS * self._task.batch_size
            order = np.random.default_rng(self._task.seed).permutation(len(places))[:most]
            data = batches(self._task, places[order], shuffled=True)
            steps = self._task.steps(len(order))
            epochs = -(-_TRIAL_STEPS // steps)
            model = self._model(mode, epochs * steps)
            model.begin_epoch(self._task.seed, 0)
            model.keras.fit(data, epochs=epochs, shuffle=False, verbose=0)
            found = model.keras.evaluate(
                batches(self._task, self._task.validation, shuffled=False), verbose=0, return_dict=True
            )
            self._progress(
                f"batch statistics move {WORDS[mode]}: validation accuracy {found['accuracy']:.1%}"
            )
            return found["accuracy"], found["loss"]
        finally:
            self._network.assign(before)
