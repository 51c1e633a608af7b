"""Every supported variant against the pixels of an independent reader for the same file."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from beamlabel.transforms.decoding.decode import DecodeOptions, decode
from beamlabel.transforms.decoding.picture import variants
from beamlabel.transforms.decoding.picture.limits import in_place
from beamlabel.transforms.records import ImageError, Reason
from support.corpus import CORPUS, CorpusFile, corpus
from support.paths import ROOT

FAMILIES = sorted({file.variant.split()[0].rstrip(",") for file in corpus()})


class _Asked(frozenset):  # type: ignore[type-arg]
    """The list of variants; it records lookups."""

    asked: list[str]

    def __contains__(self, name: object) -> bool:
        self.asked.append(str(name))
        return super().__contains__(name)


def decoded(file: CorpusFile) -> np.ndarray:
    height, width = file.pixels.shape[:2]
    with in_place():  # only this process can record lookups in the list
        return decode(file.data, DecodeOptions(height, width)).pixels


def test_every_variant_has_a_file_and_every_file_a_variant():
    assert {file.variant for file in corpus()} == variants.VARIANTS
    assert CORPUS.stat().st_size < 900_000


@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_are_those_of_the_independent_reader(family, monkeypatch):
    asked = _Asked(variants.VARIANTS)
    monkeypatch.setattr(variants, "VARIANTS", asked)
    wrong = {}
    files = [file for file in corpus() if file.variant.split()[0].rstrip(",") == family]
    for number, file in enumerate(files):
        asked.asked = []
        pixels = decoded(file)
        # An icon also looks up its content.
        assert asked.asked[0] == file.variant, number
        difference = np.abs(pixels.astype(int) - file.pixels).max()
        if difference > file.tolerance:
            wrong[f"{file.variant} ({file.reader})"] = int(difference)
    assert files and not wrong


@pytest.mark.parametrize("family", FAMILIES)
def test_a_scheme_outside_the_list_is_refused(family, monkeypatch):
    file = next(file for file in corpus() if file.variant.split()[0].rstrip(",") == family)
    monkeypatch.setattr(variants, "VARIANTS", variants.VARIANTS - {file.variant})
    with pytest.raises(ImageError) as caught:
        decoded(file)
    assert caught.value.reason is Reason.UNSUPPORTED_FORMAT and file.variant in caught.value.detail


def test_the_page_names_every_family_and_only_compared_ones():
    page = (ROOT / "docs" / "decoding.md").read_text()
    table = page.split("## Decoded formats")[1].split("Known and not decoded")[0]
    named = {
        name.lower()
        for name in re.findall(r"[A-Za-z]+(?: 2000)?", " ".join(re.findall(r"^\| ([^|]+) \|", table, re.M)))
    }
    assert set(FAMILIES) - {"jpeg2000"} <= named and "jpeg 2000" in named


def test_lossless_formats_leave_nothing_open():
    """Only alpha, 16 bits, CMYK and lossy formats have a tolerance; all other pixels are equal."""
    exact = Counter(file.tolerance == 0 for file in corpus())
    assert exact[True] > len(corpus()) / 3
    lossy = ("avif", "tiff lab")
    assert all(file.tolerance <= 2 or file.variant.startswith(lossy) for file in corpus())
