"""Runs epochs of Keras's ``fit`` and saves each, so that a training can resume after it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from beamlabel.pipeline.fine_tune.model import TrainedModel
from beamlabel.pipeline.fine_tune.state import Workplace
from beamlabel.pipeline.fine_tune.task import Task, batches
from beamlabel.pipeline.train.findings.findings import Epoch
from beamlabel.transforms.secrets.say import say


def train(model: TrainedModel, task: Task, place: Workplace, epochs: int, patience: int) -> None:
    """Trains a compiled model until the epochs are done or validation has not improved for a while.

    Args:
      model: the model; at the end it has the weights of its last epoch.
      task: images and truth to train on.
      place: directory to resume from and to save each epoch in.
      epochs: largest number of epochs.
      patience: epochs without a better validation result, after the first half: while the learning rate is high,
        validation falls before it exceeds that of the initial head.

    Raises:
      Cancelled: a signal came; the epochs before are saved.
    """
    state = place.state
    # Build the optimizer first, because the files hold its state too.
    model.keras.optimizer.build(model.keras.trainable_variables)
    if state.is_over:
        return
    if state.weights:
        model.keras.load_weights(place.directory / state.weights)
    data = batches(task, task.train, shuffled=True)
    model.keras.fit(
        data,
        validation_data=batches(task, task.validation, shuffled=False),
        initial_epoch=len(state.history),
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[_progress(epochs), _keeper(model, task, data, place, epochs, patience)],
    )
    place.save(is_over=True)


def is_better(one: Epoch, other: Epoch | None, *, by_loss: bool) -> bool:
    """Whether an epoch beats another: by validation accuracy and, among equals, by loss.

    The loss alone would stop a training while accuracy still grows: the network becomes overconfident, which the
    temperature corrects afterwards. ``by_loss``: for several classes per image, whose accuracy says little.
    """
    return other is None or _score(one, by_loss) > _score(other, by_loss)


def is_enough(done: int, best: int, epochs: int, patience: int) -> bool:
    """Whether a training of ``epochs`` ends after epoch ``done``, with ``best`` the best so far; see ``train``."""
    return done >= epochs or done - max(best, epochs // 2) >= patience


def _score(epoch: Epoch, by_loss: bool) -> tuple[float, float]:
    loss, accuracy = epoch.validation_loss, epoch.validation_accuracy
    assert loss is not None and accuracy is not None
    return (0.0 if by_loss else accuracy, -loss)


def _keeper(model: TrainedModel, task: Task, data: Any, place: Workplace, epochs: int, patience: int) -> Any:
    """A callback that seeds and saves each epoch.

    Keras's ``BackupAndRestore`` writes the weights and the epoch number in place, one after the other. If it were
    killed in between, an epoch would be trained twice. Here the state file names the weights that belong to it.
    """
    import keras

    class Keeper(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
            model.begin_epoch(task.seed, epoch)
            data.begin_epoch(epoch)

        def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
            assert logs is not None
            done = Epoch(epoch + 1, logs["loss"], logs["val_loss"], logs["val_accuracy"])
            history = place.state.history
            best = history[place.state.best_epoch - 1] if place.state.best_epoch else None
            name = f"epoch-{done.number:05d}.weights.h5"
            self.model.save_weights(place.directory / name)
            changes: dict[str, Any] = {"history": (*history, done), "weights": name}
            if is_better(done, best, by_loss=task.rows.multi_label):
                changes |= {"best": name, "best_epoch": done.number}
            best_epoch = changes.get("best_epoch", place.state.best_epoch)
            if is_enough(done.number, best_epoch, epochs, patience):
                changes["is_over"] = True
                self.model.stop_training = True
            place.save(**changes)

    return Keeper()


def _progress(epochs: int) -> Any:
    """A progress bar of the current epoch on standard error, and a line for each epoch that is done."""

    import keras
    from tqdm import tqdm

    class Progress(keras.callbacks.Callback):  # type: ignore[misc]
        _bar: Any = None

        def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
            self._bar = tqdm(
                total=self.params["steps"],
                desc=f"epoch {epoch + 1}/{epochs}",
                unit=" steps",
                leave=False,
                dynamic_ncols=True,
                file=sys.stderr,
                disable=None,
            )

        def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
            self._bar.update()
            self._bar.set_postfix_str(f"loss {(logs or {}).get('loss', 0):.3f}", refresh=False)

        def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
            self._bar.close()
            found = logs or {}
            say(
                f"epoch {epoch + 1}/{epochs}: loss {found.get('loss', 0):.3f}, validation loss "
                f"{found.get('val_loss', 0):.3f}, validation accuracy {found.get('val_accuracy', 0):.3f}"
            )

        def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
            if self._bar is not None:
                self._bar.close()

    return Progress()
