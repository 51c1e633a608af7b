"""The reader of legacy PyTorch files: accepted and refused content."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from beamlabel.pipeline.demo.torch_weights import WeightsError, read_state_dict

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
PARTS = ("magic", "version", "system", "state", "keys")


class Storage(NamedTuple):
    """An object that the pickler below writes as a persistent id."""

    type_name: str
    key: str
    elements: np.ndarray
    announced: int | None = None


class Call:
    """Unpickles as a call of an arbitrary ``function``, as in a malicious file."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.args


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A stand-in for torch with picklable names; the reader must work without it."""
    module, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "LongStorage", "HalfStorage"):
        setattr(module, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_: Any) -> None: ...

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    module._utils = utils  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", module)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return module


def pickled(value: Any, torch: Any) -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            if not isinstance(obj, Storage):
                return None
            size = len(obj.elements) if obj.announced is None else obj.announced
            return ("storage", getattr(torch, obj.type_name), obj.key, "cpu", size, None)

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def tensor(torch: Any, storage: Storage, offset: Any, shape: Any, strides: Any) -> Call:
    rebuild = torch._utils._rebuild_tensor_v2
    return Call(rebuild, storage, offset, shape, strides, False, OrderedDict())


def write(path: Path, torch: Any, state: Any, /, *storages: Storage, **parts: Any) -> Path:
    """Writes a checkpoint; ``parts`` replace pickles by name."""
    pickles = {"magic": MAGIC, "version": 1001, "system": SYSTEM, "state": state}
    pickles = {**pickles, "keys": [storage.key for storage in storages], **parts}
    raw = [struct.pack("<q", len(s.elements)) + s.elements.tobytes() for s in storages]
    path.write_bytes(b"".join([*(pickled(pickles[part], torch) for part in PARTS), *raw]))
    return path


FLOATS = Storage("FloatStorage", "1", np.arange(24, dtype="<f4"))
LONGS = Storage("LongStorage", "2", np.array([7, -(2**40)], dtype="<i8"))


def test_offset_shape_strides_and_shared_storages(tmp_path: Path, torch: Any) -> None:
    state = OrderedDict(
        plain=tensor(torch, FLOATS, 0, (2, 3, 4), (12, 4, 1)),
        transposed=tensor(torch, FLOATS, 4, (5, 4), (1, 5)),
        scalar=tensor(torch, LONGS, 1, (), ()),
        row=tensor(torch, FLOATS, 23, (1,), (1,)),
    )
    state._metadata = OrderedDict()  # type: ignore[attr-defined]  # as PyTorch leaves it: unpickled by BUILD
    read = read_state_dict(write(tmp_path / "w.pth", torch, state, LONGS, FLOATS))
    assert list(read) == ["plain", "transposed", "scalar", "row"]
    elements = np.arange(24, dtype=np.float32)
    np.testing.assert_array_equal(read["plain"], elements.reshape(2, 3, 4))
    np.testing.assert_array_equal(read["transposed"], elements[4:].reshape(4, 5).T)
    assert read["transposed"].flags.c_contiguous
    assert (read["scalar"].shape, read["scalar"].dtype, int(read["scalar"])) == ((), np.int64, -(2**40))
    np.testing.assert_array_equal(read["row"], np.float32([23]))


@pytest.mark.parametrize("part", PARTS)
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path, torch: Any, part: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    state = {"w": tensor(torch, FLOATS, 0, (24,), (1,))}
    attack = Call(os.rmdir, str(victim))
    path = write(tmp_path / "w.pth", torch, state, FLOATS, **{part: attack})
    with pytest.raises(WeightsError, match=r"uses (posix|nt)\.rmdir, which is not allowed"):
        read_state_dict(path)
    assert victim.is_dir()

    pickle.loads(pickled(attack, torch))  # the attack is real: it works on the plain unpickler
    assert not victim.exists()


@pytest.mark.parametrize("function", [eval, getattr, np.load, np.dtype, OrderedDict.fromkeys])
def test_other_callables_are_refused(tmp_path: Path, torch: Any, function: Any) -> None:
    path = write(tmp_path / "w.pth", torch, {"w": Call(function, "1")})
    with pytest.raises(WeightsError, match="not allowed"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (25,), (1,)),
        (24, (1,), (1,)),
        (1, (24,), (1,)),
        (0, (2, 2), (23, 2)),
        (10**9, (1,), (1,)),
        (0, (10**12,), (0,)),
        (0, (0,), (1,)),
        (-1, (1,), (1,)),
        (0, (-1,), (1,)),
        (5, (2,), (-1,)),
        (0, (2.0,), (1,)),
        (0, (2, 2), (1,)),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(
    tmp_path: Path, torch: Any, offset: Any, shape: Any, strides: Any
) -> None:
    path = write(tmp_path / "w.pth", torch, {"w": tensor(torch, FLOATS, offset, shape, strides)}, FLOATS)
    with pytest.raises(WeightsError, match="a tensor "):
        read_state_dict(path)


def test_other_storages_are_refused(tmp_path: Path, torch: Any) -> None:
    halves = Storage("HalfStorage", "1", np.zeros(2, "<f2"))
    path = write(tmp_path / "w.pth", torch, {"w": tensor(torch, halves, 0, (2,), (1,))}, halves)
    with pytest.raises(WeightsError, match=r"uses torch\.HalfStorage"):
        read_state_dict(path)


def test_one_storage_under_two_types_is_refused(tmp_path: Path, torch: Any) -> None:
    alias = Storage("LongStorage", FLOATS.key, np.arange(24, dtype="<i8"))
    state = {"a": tensor(torch, FLOATS, 0, (1,), (1,)), "b": tensor(torch, alias, 0, (1,), (1,))}
    with pytest.raises(WeightsError, match="a disagrees with another tensor"):
        read_state_dict(write(tmp_path / "w.pth", torch, state, alias))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"magic": 1}, "not a checkpoint of PyTorch's legacy format"),
        ({"version": 1002}, "protocol version 1002"),
        ({"system": {**SYSTEM, "little_endian": False}}, "little-endian"),
        ({"state": [1, 2]}, "but a list"),
        ({"state": {"epoch": 3}}, "'epoch' of the checkpoint is not a named tensor"),
        ({"keys": []}, "differ from those that its tensors name"),
        ({"keys": ["1", "1"]}, "differ from those that its tensors name"),
        ({"keys": [[]]}, "differ from those that its tensors name"),
    ],
)
def test_other_formats_are_refused(tmp_path: Path, torch: Any, parts: dict[str, Any], message: str) -> None:
    state = {"w": tensor(torch, FLOATS, 0, (24,), (1,))}
    with pytest.raises(WeightsError, match=message):
        read_state_dict(write(tmp_path / "w.pth", torch, state, FLOATS, **parts))


def test_a_storage_of_another_size_than_announced_is_refused(tmp_path: Path, torch: Any) -> None:
    liar = FLOATS._replace(announced=23)
    path = write(tmp_path / "w.pth", torch, {"w": tensor(torch, liar, 0, (1,), (1,))}, FLOATS)
    with pytest.raises(WeightsError, match="has 24 elements instead of 23"):
        read_state_dict(path)


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path, torch: Any) -> None:
    state = {"w": tensor(torch, FLOATS, 0, (24,), (1,))}
    whole = write(tmp_path / "w.pth", torch, state, FLOATS).read_bytes()
    cut = tmp_path / "cut.pth"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            read_state_dict(cut)
