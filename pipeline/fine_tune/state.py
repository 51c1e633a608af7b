"""The state of a training on disk. It is complete at any time, so that a training can resume after any kill."""

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
# The loss of a training that diverged is not finite.
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
    """The state that is kept between processes.

    Attributes:
      identity: everything that decides the result; a training resumes only with the same identity.
      mode: treatment of batch statistics, see ``network``; empty before it is chosen.
      decision: the reason for it.
      history: the epochs that are done.
      weights, best: files in the directory: the model after the last epoch and after the best one.
      best_epoch: number of the best epoch; 0 before there is one.
      is_over: whether the training is complete.
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
    """A directory beside the output that holds pixels and weights until the training is done.

    Args:
      directory: the existing directory.
      state: the state read from it.
    """

    def __init__(self, directory: Path, state: State) -> None:
        self.directory, self.state = directory, state

    def save(self, **changes: Any) -> None:
        """Changes the state on disk atomically, then deletes the weights that it no longer names."""
        before = {self.state.weights, self.state.best}
        self.state = dataclasses.replace(self.state, **changes)
        _write(self.directory, self.state)
        for name in before - {self.state.weights, self.state.best, ""}:
            (self.directory / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Removes the directory; the state file, which marks it as beamlabel's, goes last."""
        for path in self.directory.iterdir():
            if path.name != STATE:
                path.unlink()
        shutil.rmtree(self.directory)


def directory_of(output: str) -> Path:
    """Directory for the files of a training into ``output``, an absolute path: beside it, or a temporary one."""
    if storage.is_local(output):
        return Path(f"{staging.beside(output)}-training")
    digest = hashlib.sha256(output.encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"beamlabel-training-{os.getuid()}-{digest}"


def open_workplace(output: str, identity: dict[str, Any], if_exists: str) -> Workplace:
    """Opens the directory of a new or an interrupted training.

    Args:
      output: absolute path or URI; its lock is held.
      identity: everything that decides the result, as JSON values.
      if_exists: see ``FineTuneOptions``.

    Raises:
      UsageError: the training was interrupted and may not resume, it differs, or the directory is not beamlabel's.
    """
    directory = directory_of(output)
    text = json.dumps(identity, sort_keys=True)
    if not directory.exists():
        directory.mkdir(parents=True)
        state = State(text)
        _write(directory, state)
        return Workplace(directory, state)
    found = None if directory.is_symlink() else _read(directory)
    if found is None:
        raise UsageError(
            f"Directory {directory} was not made by beamlabel but has the name of a training's directory: move it away"
        )
    if if_exists != RESUME:
        raise UsageError(
            f"The training into {output} was interrupted after {len(found.history)} epochs: use --if_exists resume to "
            f"continue, or delete {directory} to start again"
        )
    if found.identity != text:
        different = _different(json.loads(found.identity), identity)
        raise UsageError(
            f"The interrupted training into {output} differs in {', '.join(different)}: give the same options, or "
            f"delete {directory} to start again"
        )
    _tidy(directory, found)
    return Workplace(directory, found)


def _different(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def _tidy(directory: Path, state: State) -> None:
    """Deletes weights that a killed process wrote but did not name in the state yet."""
    for path in directory.glob("*.weights.h5"):
        if path.name not in (state.weights, state.best):
            path.unlink()


def _read(directory: Path) -> State | None:
    try:
        value = parse((directory / STATE).read_bytes(), _STATE)
        if value.pop("format") != _FORMAT:
            return None
        history = tuple(Epoch(**one) for one in value.pop("history"))
        found = State(history=history, **value)
        parse(found.identity, OBJECT)
        # These files are loaded and deleted, so their names must be safe.
        for name in filter(None, (found.weights, found.best)):
            below(str(directory), name)
            if not _WEIGHTS.fullmatch(name):
                return None
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(directory: Path, state: State) -> None:
    temporary = directory / f".{STATE}"
    with temporary.open("w") as file:
        json.dump({"format": _FORMAT, **dataclasses.asdict(state)}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(directory / STATE)
