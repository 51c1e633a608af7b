"""The stored corpus: a file of every supported variant, with its pixels from an independent reader."""

from __future__ import annotations

import functools
import json
import tarfile
from typing import NamedTuple

import numpy as np

from support.paths import ROOT

CORPUS = ROOT / "tests" / "data" / "corpus.tar.xz"


class CorpusFile(NamedTuple):
    """See ``tools/corpus/entry.py``."""

    variant: str
    data: bytes
    pixels: np.ndarray
    reader: str
    tolerance: int


@functools.cache
def corpus() -> tuple[CorpusFile, ...]:
    """All files, in the order of the index."""
    with tarfile.open(CORPUS) as archive:
        contents = {}
        for member in archive:
            stream = archive.extractfile(member)
            assert stream is not None
            contents[member.name] = stream.read()
    return tuple(
        CorpusFile(
            row["variant"],
            contents[row["file"]],
            np.frombuffer(contents[row["pixels"]], np.uint8).reshape(row["height"], row["width"], 3),
            row["reader"],
            row["tolerance"],
        )
        for row in json.loads(contents["index.json"])
    )
