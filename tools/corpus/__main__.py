"""``python -m tools.corpus``: writes the corpus again and prints where beamlabel's reader differs from the others."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np

from beamlabel.transforms.decoding.decode import DecodeOptions, decode
from beamlabel.transforms.decoding.picture import variants
from beamlabel.transforms.records import ImageError
from tools.corpus.entry import Entry, check_programs

TARGET = Path(__file__).parents[2] / "tests" / "data" / "corpus.tar.xz"


def entries(prefix: str) -> list[Entry]:
    """All entries whose variant begins with ``prefix``."""
    from tools.corpus import bitmaps, photos, textures, tiffs

    names = sorted(name for name in variants.VARIANTS if name.startswith(prefix))
    found: list[Entry] = []
    found += tiffs.tiffs([name for name in names if name.startswith("tiff ")])
    for module in (photos, bitmaps, textures):
        found += [entry for entry in module.entries() if entry.variant.startswith(prefix)]
    return found


def problem(entry: Entry) -> str | None:
    """Returns the difference or error of beamlabel's reader for the entry, or None."""
    height, width = entry.pixels.shape[:2]
    try:
        with mock.patch.object(
            variants, "VARIANTS", frozenset((entry.variant, "png rgba 8 bit", "png rgb 8 bit"))
        ):
            decode(entry.data, DecodeOptions(height, width))
        pixels = decode(entry.data, DecodeOptions(height, width)).pixels.astype(int)
    except ImageError as error:
        return str(error)
    difference = np.abs(pixels - entry.pixels)
    return (
        f"differs by {difference.max()}, mean {difference.mean():.2f}"
        if difference.max() > entry.tolerance
        else None
    )


def write(found: list[Entry]) -> None:
    """Writes the archive: files, pixels (each once) and an index; the same entries give the same bytes."""
    index, contents = [], {}
    for number, entry in enumerate(found):
        raw = entry.pixels.astype(np.uint8).tobytes()
        pixels = f"pixels/{hashlib.sha256(raw).hexdigest()[:16]}"
        contents[pixels] = raw
        contents[f"files/{number:04d}"] = entry.data
        index.append(
            {
                "variant": entry.variant,
                "file": f"files/{number:04d}",
                "pixels": pixels,
                "height": entry.pixels.shape[0],
                "width": entry.pixels.shape[1],
                "reader": entry.reader,
                "tolerance": entry.tolerance,
            }
        )
    contents["index.json"] = json.dumps(index, indent=0).encode()
    with tarfile.open(TARGET, "w:xz", preset=9) as archive:
        for name in sorted(contents):
            member = tarfile.TarInfo(name)
            member.size = len(contents[name])
            archive.addfile(member, io.BytesIO(contents[name]))


def main() -> int:
    """Writes the corpus; returns 1 and writes nothing if an entry is wrong or missing, or if a prefix is given."""
    check_programs()
    prefix = sys.argv[1] if len(sys.argv) > 1 else ""
    found = entries(prefix)
    bad = {entry.variant: problem(entry) for entry in found}
    wrong = {name: text for name, text in bad.items() if text}
    missing = {name for name in variants.VARIANTS if name.startswith(prefix)} - set(bad)
    for name, text in wrong.items():
        sys.stdout.write(f"{name}: {text}\n")
    for name in sorted(missing):
        sys.stdout.write(f"no file: {name}\n")
    readers = dict(Counter(entry.reader for entry in found))
    sys.stdout.write(
        f"{len(found)} files, {len(wrong)} wrong, {len(missing)} variants without a file; {readers}\n"
    )
    if wrong or missing or prefix:
        return 1
    write(found)
    sys.stdout.write(f"{TARGET}: {TARGET.stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
