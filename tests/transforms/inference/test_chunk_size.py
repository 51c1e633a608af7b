"""The engine's chunk: measured once per host, with equal bits at every size."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from beamlabel.transforms.inference import chunk_size, litert_engine
from beamlabel.transforms.inference.artifact import unpack
from beamlabel.transforms.inference.chunk_size import CHUNKS, measured
from beamlabel.transforms.inference.engines import open_engine
from beamlabel.transforms.inference.probe import probe_batch
from beamlabel.transforms.module_artifact import artifact_of
from support.jobs import TINY
from support.paths import SHARED

WISHES = ("logits_output", "features_output", "image_size", "input_range")
MODULES = [
    TINY,
    *(f"{SHARED}/modules/mobilenet_v2_{name}_classification_1.tar.gz" for name in ("075_160", "100_224")),
]


def artifact(module):
    return artifact_of(module, **dict.fromkeys(WISHES), engine="auto", precision="float32")


@pytest.mark.parametrize("module", MODULES)
def test_all_chunks_give_the_same_bits(module):
    if not Path(module).exists():
        pytest.skip(f"no {module}")
    compiled = artifact(module)
    spec, _ = unpack(Path(compiled.path).read_bytes())
    images = np.tile(probe_batch(spec.height, spec.width), (4, 1, 1, 1))
    images[4:] = 255 - images[4:]
    answers = set()
    for size in CHUNKS:
        interpreter = litert_engine._Interpreter(spec, {"model_path": compiled.path}, size)
        parts = [
            [output.copy() for output in interpreter.run(images[start : start + size])]
            for start in range(0, len(images), size)
        ]
        answers.add(tuple(np.concatenate(outputs).tobytes() for outputs in zip(*parts, strict=True)))
    assert len(answers) == 1


class Fake:
    """A runner whose answers depend on its chunk if the chunk is in ``odd``."""

    def __init__(self, chunk, odd=()):
        self.offset = chunk if chunk in odd else 0

    def run(self, images):
        features = np.array([[image.sum() + self.offset] for image in images], np.float32)
        return [None, features]


@pytest.fixture
def spec():
    return unpack(Path(artifact(TINY).path).read_bytes())[0]


@pytest.fixture
def clock(monkeypatch):
    """Returns CPU seconds from a table by chunk, independent of the machine."""

    def set_to(per_image):
        tried = chunk_size._tried
        monkeypatch.setattr(
            chunk_size, "_tried", lambda chunk, *more: (tried(chunk, *more)[0], per_image[chunk])
        )

    return set_to


@pytest.mark.parametrize(
    ("seconds", "odd", "chosen"),
    [
        ({1: 9, 2: 5, 4: 4, 8: 3, 16: 6}, (), 8),
        ({1: 9, 2: 5, 4: 4, 8: 3, 16: 6}, (8,), 4),
        ({1: 9, 2: 3.5, 4: 4, 8: 3, 16: 2}, (8, 16), 2),
        ({1: 9, 2: 5, 4: 4, 8: 3.9, 16: 6}, (), 4),  # as good as equal
        ({1: 1, 2: 5, 4: 4, 8: 3, 16: 6}, (1,), 8),
    ],
)
def test_the_fastest_of_those_with_equal_bits(seconds, odd, chosen, spec, clock):
    clock({chunk: 1e-6 * value for chunk, value in seconds.items()})
    assert measured(spec, 4, lambda chunk: Fake(chunk, odd)) == chosen


def test_a_large_model_keeps_the_usual_chunk(spec, monkeypatch):
    opened = []
    monkeypatch.setattr(chunk_size, "SECONDS", 0.0)
    assert measured(spec, 4, lambda chunk: opened.append(chunk) or Fake(chunk)) == 4
    assert opened == [1]


def test_it_is_measured_once_a_host(tmp_path, monkeypatch, spec):
    monkeypatch.setenv("BEAMLABEL_CACHE", str(tmp_path))
    counted = []
    monkeypatch.setattr(chunk_size, "measured", lambda *_: counted.append(1) or 8)
    choose = chunk_size.chunk_size
    assert [choose(spec, "litert 1", 4, Fake) for _ in range(3)] == [8, 8, 8]
    assert len(counted) == 1
    (file,) = (tmp_path / "chunks").glob("*.json")
    for damaged in ("", "[]", '{"chunk": 3}'):
        file.write_text(damaged)
        assert choose(spec, "litert 1", 4, Fake) == 8
    assert len(counted) == 4
    assert json.loads(file.read_text())["chunk"] == 8
    # No measurement exists for another engine, CPU or model.
    assert choose(spec, "litert 2", 4, Fake) == 8
    monkeypatch.setattr(chunk_size.cpu, "model", lambda: "another")
    assert choose(spec, "litert 1", 4, Fake) == 8
    assert choose(dataclasses.replace(spec, fingerprint="f" * 64), "litert 1", 4, Fake) == 8
    assert len(counted) == 7
    assert choose(dataclasses.replace(spec, batch=3), "litert 1", 4, Fake) == 3


def test_without_a_cache_it_is_the_usual_one(tmp_path, monkeypatch, spec):
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("BEAMLABEL_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(chunk_size, "measured", lambda *_: 8)
    assert chunk_size.chunk_size(spec, "litert 1", 4, Fake) == 4


def test_an_engine_takes_it(tmp_path, monkeypatch):
    compiled = artifact(TINY)
    spec, _ = unpack(Path(compiled.path).read_bytes())
    images = np.tile(probe_batch(spec.height, spec.width), (3, 1, 1, 1))
    monkeypatch.setenv("BEAMLABEL_CACHE", str(tmp_path))
    answers, shapes = [], set()
    run = litert_engine._Interpreter.run
    monkeypatch.setattr(
        litert_engine._Interpreter, "run", lambda self, part: shapes.add(len(part)) or run(self, part)
    )
    for size in (2, 16):
        monkeypatch.setattr(litert_engine, "chunk_size", lambda *_, size=size: size)
        engine = open_engine(compiled.path, compiled.sha256)
        answers.append([output.tobytes() for output in engine(images)])
    assert answers[0] == answers[1]
    assert shapes == {2, 12}
