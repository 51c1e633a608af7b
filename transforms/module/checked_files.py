"""The only path from a module's files into TensorFlow: its operations are checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from beamlabel.transforms.allowed_ops.keras_file import unsafe_in_keras_file
from beamlabel.transforms.allowed_ops.operations import Finding
from beamlabel.transforms.allowed_ops.saved_model import unsafe_in_saved_model
from beamlabel.transforms.hub.files import SAVED_MODEL, WAY_OUT
from beamlabel.transforms.hub.resolve import ResolvedModule
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow, tensorflow_hub

_SHOWN = 5


class CheckedSavedModel:
    """A SavedModel whose operations are all allowed, by ``allowed_ops`` or by the user.

    Attributes:
      path: its directory.
      meta_graphs: all its meta graphs, as ``MetaGraphDef``.

    Raises:
      ModuleError: it is damaged, or has operations that are not allowed; the message names them and their places.
    """

    def __init__(self, resolved: ResolvedModule) -> None:
        tensorflow()
        from google.protobuf.message import DecodeError
        from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

        self.path = resolved.path
        try:
            saved_model = SavedModel.FromString((self.path / SAVED_MODEL).read_bytes())
            found = [] if resolved.allows_unsafe_ops else unsafe_in_saved_model(saved_model)
        except (DecodeError, LookupError, ValueError, TypeError, RecursionError) as error:
            # For example, nodes in the graph lack required inputs.
            raise ModuleError(f"{self.path / SAVED_MODEL} is damaged or not a SavedModel: {error}") from error
        check_allowed(found)
        self.meta_graphs: Sequence[Any] = saved_model.meta_graphs

    def load(self, tags: Iterable[str] | None) -> Any:
        """Loads it like ``tensorflow_hub.load``, also for TF1 Hub modules; ``tags`` None: its only meta graph."""
        return tensorflow_hub().load(str(self.path), tags=None if tags is None else list(tags))


def checked_keras_file(resolved: ResolvedModule) -> Path:
    """The path of a ``.keras`` file that has only Keras's own layers, unless the user allows all.

    Raises:
      ModuleError: it has other layers, or a layer would read files; the message names them.
    """
    if not resolved.allows_unsafe_ops:
        check_allowed(unsafe_in_keras_file(resolved.path), instead=WAY_OUT)
    return resolved.path


def check_allowed(found: Sequence[Finding], *, instead: str = "") -> None:
    """Raises ``ModuleError`` for operations that are not allowed in a module.

    Args:
      found: the operations.
      instead: an alternative to allowing them, for the message.
    """
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ModuleError(
            "it has operations that may read, write or send data other than its own weights: "
            f"{'; '.join(map(str, found[:_SHOWN]))}{more}. A module runs with your rights: use --allow_unsafe_ops "
            f"only if you trust its author{instead and f'; or {instead}'}"
        )
