"""Compressed tars as streams: whole, several streams in one, cut, damaged, and bombs."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
from collections.abc import Callable

import pyarrow as pa
import pytest

from beamlabel.transforms.inputs.archives import compression
from beamlabel.transforms.inputs.archives.compression import compression_of, decompressed
from beamlabel.transforms.inputs.archives.entries import ArchiveError
from beamlabel.transforms.records import Reason


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
}
DATA = random.Random(17).randbytes(300_000) + bytes(50_000)
each = pytest.mark.parametrize("kind", COMPRESS)


def inflate(packed: bytes, kind: str) -> bytes:
    with decompressed(io.BytesIO(packed), kind) as stream:
        return stream.read()


@each
def test_compressed_data_come_back(kind: str) -> None:
    packed = COMPRESS[kind](DATA)
    assert compression_of(packed) == kind
    assert inflate(packed, kind) == DATA
    assert inflate(packed + COMPRESS[kind](b"second"), kind) == DATA + b"second"


@each
def test_a_cut_is_reported(kind: str) -> None:
    packed = COMPRESS[kind](DATA)
    for stop in (20, len(packed) // 2, len(packed) - 3):
        with pytest.raises(ArchiveError) as error:
            inflate(packed[:stop], kind)
        assert error.value.problem[0] is Reason.TRUNCATED


@each
def test_damage_is_reported(kind: str) -> None:
    packed = bytearray(COMPRESS[kind](b"text that compresses " * 20_000))
    packed[len(packed) // 2] ^= 0xFF
    packed[len(packed) // 3] ^= 0xFF
    with pytest.raises(ArchiveError):
        inflate(bytes(packed), kind)


@each
def test_a_bomb_is_stopped(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_FREE_BYTES", 1 << 20)
    packed = COMPRESS[kind](bytes(60 << 20))
    with pytest.raises(ArchiveError) as error:
        inflate(packed, kind)
    assert error.value.problem[0] is Reason.TOO_MANY_BYTES


@each
def test_errors_of_the_storage_keep_their_class(kind: str) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise ConnectionResetError("reset")
            return super().read(size)

    with (
        pytest.raises(ConnectionResetError),
        decompressed(Failing(COMPRESS[kind](DATA)), kind) as stream,
    ):
        stream.read()
