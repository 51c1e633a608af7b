"""Where a training has come to, on disk: what is there is always whole, so that a training goes on after any kill."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.fine_tune.options import RESUME
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.train.findings.findings import Epoch
from beamlabel.transforms import storage
from beamlabel.transforms.shapes import COUNT, FLAG, OBJECT, TEXT, Kind, optional, parse
from beamlabel.transforms.storage.inside import below

STATE = "training.json"
_FORMAT = "beamlabel training"
# One that did not converge is not finite.
_LOSS = Kind("a number", lambda value: type(value) in (int, float))
_STATE = {
    "format": TEXT,
    "identity": TEXT,
    "mode": TEXT,
    "decision": OBJECT,
    "history": [
        {
            "number": COUNT,
            "loss": _LOSS,
            "validation_loss": optional(_LOSS),
            "validation_accuracy": optional(_LOSS),
        }
    ],
    "weights": TEXT,
    "best": TEXT,
    "best_epoch": COUNT,
    "is_over": FLAG,
}
_WEIGHTS = re.compile(r"[a-z]+-\d+\.weights\.h5")


@dataclass(frozen=True)
class State:
    """What is kept between processes.

    Attributes:
      identity: of all that decides the result; a training goes on only with the same.
      mode: how batch statistics are treated, see ``network``; empty before that is decided.
      decision: why, in words.
      history: the epochs that are done.
      weights, best: files of the folder: the model after the last epoch, and after the best.
      best_epoch: its number; 0 before there is one.
      is_over: whether nothing is left to train.
    """

    identity: str
    mode: str = ""
    decision: dict[str, Any] = field(default_factory=dict)
    history: tuple[Epoch, ...] = ()
    weights: str = ""
    best: str = ""
    best_epoch: int = 0
    is_over: bool = False


class Workplace:
    """A folder of ours beside the output, for pixels and weights, until the training is done.

    Args:
      folder: which exists.
      state: as it was read.
    """

    def __init__(self, folder: Path, state: State) -> None:
        self.folder, self.state = folder, state

    def save(self, **changes: Any) -> None:
        """Changes the state on disk, at once; then deletes the weights that it does not name any more."""
        before = {self.state.weights, self.state.best}
        self.state = dataclasses.replace(self.state, **changes)
        _write(self.folder, self.state)
        for name in before - {self.state.weights, self.state.best, ""}:
            (self.folder / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Nothing is left of it; the mark goes last."""
        for path in self.folder.iterdir():
            if path.name != STATE:
                path.unlink()
        shutil.rmtree(self.folder)


def folder_of(output: str) -> Path:
    """Where a training into an output, an absolute path, has its files: beside it, or in a temporary place."""
    if storage.is_local(output):
        return Path(f"{staging.beside(output)}-training")
    digest = hashlib.sha256(output.encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"beamlabel-training-{os.getuid()}-{digest}"


def open_workplace(output: str, identity: dict[str, Any], if_exists: str) -> Workplace:
    """The folder of a new training, or of one that was cut short.

    Args:
      output: absolute path or URI; its lock is held.
      identity: all that decides the result, as JSON has it.
      if_exists: see ``FineTuneOptions``.

    Raises:
      UsageError: a training was cut short and is not to go on, it was another, or the folder is not ours.
    """
    folder = folder_of(output)
    text = json.dumps(identity, sort_keys=True)
    if not folder.exists():
        folder.mkdir(parents=True)
        state = State(text)
        _write(folder, state)
        return Workplace(folder, state)
    found = None if folder.is_symlink() else _read(folder)
    if found is None:
        raise UsageError(
            f"{folder} is not beamlabel's, and lies where a training keeps its files: move it away"
        )
    if if_exists != RESUME:
        raise UsageError(
            f"a training into {output} was cut short after {len(found.history)} epochs: --if_exists resume goes on "
            f"with it; to begin anew, delete {folder}"
        )
    if found.identity != text:
        different = _different(json.loads(found.identity), identity)
        raise UsageError(
            f"the training into {output} that was cut short is another, by {', '.join(different)}: give the same "
            f"options, or delete {folder} to begin anew"
        )
    _tidy(folder, found)
    return Workplace(folder, found)


def _different(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def _tidy(folder: Path, state: State) -> None:
    """Weights that a killed process has written, and not named yet, go."""
    for path in folder.glob("*.weights.h5"):
        if path.name not in (state.weights, state.best):
            path.unlink()


def _read(folder: Path) -> State | None:
    try:
        value = parse((folder / STATE).read_bytes(), _STATE)
        if value.pop("format") != _FORMAT:
            return None
        history = tuple(Epoch(**one) for one in value.pop("history"))
        found = State(history=history, **value)
        parse(found.identity, OBJECT)
        # They are loaded, and deleted.
        for name in filter(None, (found.weights, found.best)):
            below(str(folder), name)
            if not _WEIGHTS.fullmatch(name):
                return None
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(folder: Path, state: State) -> None:
    temporary = folder / f".{STATE}"
    with temporary.open("w") as file:
        json.dump({"format": _FORMAT, **dataclasses.asdict(state)}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / STATE)
