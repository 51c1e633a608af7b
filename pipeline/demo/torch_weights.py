"""Reads the tensors of a legacy PyTorch checkpoint, without PyTorch and without running its pickles.

This is the format of ``torch.save`` before PyTorch 1.6 (``torch.serialization._legacy_load`` reads it): five
consecutive pickles, then the raw storages::

    magic number | protocol version | system info | the object | storage keys | storage, storage, …

The object contains no numbers. Its tensors are calls of ``torch._utils._rebuild_tensor_v2`` with persistent
ids that name a storage; each storage at the end is an int64 count and that many elements.

A pickle is a program, and a checkpoint comes from a package index. Therefore the unpickler here accepts three
harmless names and refuses all others, and each tensor's position in its storage is checked before numpy uses
it.
"""

from __future__ import annotations

import math
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, BinaryIO, NamedTuple

import numpy as np

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001

# Element types of the storages that a classifier's weights and counters need.
_STORAGE_DTYPES: dict[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype("<f4"),
    "LongStorage": np.dtype("<i8"),
}


class WeightsError(ValueError):
    """The file is not a checkpoint of the legacy format, is damaged, or contains something that is not allowed."""


class _Storage(NamedTuple):
    """A storage further back in the file. It is a tuple, so a pickle cannot alter it once made."""

    type_name: str
    key: str
    size: int


class _Tensor(NamedTuple):
    """A view on a storage; offset and strides are in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """Replaces ``torch._utils._rebuild_tensor_v2``; gradients and hooks are ignored."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or not all(type(n) is int and n >= 0 for n in numbers):
        raise WeightsError("a tensor lacks a valid storage, offset, shape or strides")
    if len(shape) != len(strides):
        raise WeightsError(f"a tensor has {len(shape)} dimensions, but {len(strides)} strides")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _RestrictedUnpickler(pickle.Unpickler):
    """Accepts only ordered dicts, tensors and their storages."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGE_DTYPES:
            return name  # a plain string: a pickle can neither call nor alter it
        raise WeightsError(f"the checkpoint uses {module}.{name}, which is not allowed")

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", str(type_name), str(key), str(), int(size), None) if (
                type_name in _STORAGE_DTYPES and size >= 0
            ):
                return _Storage(type_name, key, size)
        raise WeightsError(f"the checkpoint names a storage in a way that is not allowed: {short_repr(pid)}")


def _unpickle(file: BinaryIO, what: str) -> Any:
    """Reads the next pickle of ``file``, and leaves the file at the byte after it."""
    try:
        return _RestrictedUnpickler(file).load()
    except WeightsError:
        raise
    # A damaged pickle may raise almost anything: EOFError, UnpicklingError, IndexError, MemoryError…
    except Exception as error:
        raise WeightsError(f"cannot read the {what}: {type(error).__name__}: {error}") from error


def _tensors(state: Any) -> dict[str, _Tensor]:
    """The object of the checkpoint, which must be a flat dict of names to tensors."""
    if not isinstance(state, dict) or not state:
        raise WeightsError(f"the checkpoint holds not a dict of tensors but a {type(state).__name__}")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise WeightsError(f"the entry {short_repr(name)} of the checkpoint is not a named tensor")
    return dict(state)


def _read_storage(file: BinaryIO, storage: _Storage, file_size: int) -> np.ndarray:
    """The elements of one storage, 1-D."""
    dtype = _STORAGE_DTYPES[storage.type_name]
    header = file.read(8)
    if len(header) < 8:
        raise WeightsError(f"the file ends before storage {storage.key}")
    (count,) = struct.unpack("<q", header)
    if count != storage.size:
        raise WeightsError(f"storage {storage.key} has {count} elements instead of {storage.size}")
    if file.tell() + count * dtype.itemsize > file_size:
        raise WeightsError(f"the file ends within storage {storage.key}")
    return np.frombuffer(file.read(count * dtype.itemsize), dtype)


def _view(tensor: _Tensor, elements: np.ndarray) -> np.ndarray:
    """The tensor as an array of its own. Checks the bounds, which ``as_strided`` does not."""
    steps = [(n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True)]
    # A stride of 0 repeats an element: without the first condition, a few bytes could demand terabytes.
    if not 0 < math.prod(tensor.shape) <= elements.size or tensor.offset + sum(steps) >= elements.size:
        raise WeightsError(
            f"a tensor of shape {tensor.shape}, strides {tensor.strides} and offset {tensor.offset} "
            f"does not fit its storage of {elements.size} elements"
        )
    strides = [stride * elements.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(elements[tensor.offset :], tensor.shape, strides)
    return np.ascontiguousarray(view).reshape(tensor.shape)


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a legacy PyTorch checkpoint by name, in the file's order.

    Args:
      path: a file written by ``torch.save(model.state_dict(), path)`` before PyTorch 1.6.

    Returns:
      C-contiguous arrays, float32 or int64, of the tensors' shapes.

    Raises:
      WeightsError: another format, a damaged file, or a pickle that uses anything but
        ``collections.OrderedDict``, ``torch._utils._rebuild_tensor_v2`` and float and long storages.
      OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        file_size = os.fstat(file.fileno()).st_size
        if _unpickle(file, "magic number") != _MAGIC_NUMBER:
            raise WeightsError("not a checkpoint of PyTorch's legacy format")
        if (version := _unpickle(file, "protocol version")) != _PROTOCOL_VERSION:
            raise WeightsError(f"protocol version {short_repr(version)} of the checkpoint is not supported")
        system = _unpickle(file, "system info")
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise WeightsError("the checkpoint was not written on a little-endian machine")
        tensors = _tensors(_unpickle(file, "object"))
        storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        keys = _unpickle(file, "storage keys")
        if not isinstance(keys, list) or sorted(keys, key=str) != sorted(storages):
            raise WeightsError("the storages in the file differ from those that its tensors name")
        elements = {key: _read_storage(file, storages[key], file_size) for key in keys}
    # A key that is named with two different types would be read with only one of them.
    for name, tensor in tensors.items():
        if tensor.storage != storages[tensor.storage.key]:
            raise WeightsError(f"{name} disagrees with another tensor on storage {tensor.storage.key}")
    return {name: _view(tensor, elements[tensor.storage.key]) for name, tensor in tensors.items()}
