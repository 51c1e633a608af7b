"""A cache on disk of images decoded as in the labeling job."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.train.findings.findings import Problem
from beamlabel.pipeline.train.rows.rows import TrainingRows
from beamlabel.transforms.decoding.decode import DECODER_VERSION
from beamlabel.transforms.loading.load_images import load_one
from beamlabel.transforms.loading.load_options import LoadOptions
from beamlabel.transforms.records import Failure, ImageRef, LoadedImage, Skipped

PIXELS, CHECKS, ABOUT, FAILED = "pixels.u8", "checks.u64", "pixels.json", "failed.json"
_SPARE_BYTES = 1 << 26
_EXAMPLES = 5
_SAVED_EVERY = 512
_NOT_THERE, _CANNOT = 0, 1
"""Values in place of a checksum: not decoded yet, and not available."""

Told = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Pixels:
    """The images of all rows.

    Attributes:
      array: uint8[N, height, width, 3], mapped.
      usable: bool[N]: rows whose image is available.
      problems: problems of the other rows.
    """

    array: np.ndarray
    usable: np.ndarray
    problems: tuple[Problem, ...]


def decoded_pixels(rows: TrainingRows, options: LoadOptions, directory: Path, told: Told) -> Pixels:
    """Fetches and decodes the images of all rows that the cache in ``directory`` does not hold yet.

    A cache of other rows or another decoding is made again. A checksum of the pixels tells whether an image is done,
    so an image that was half written when a process was killed is decoded again. An image is left out if its content
    differs from its row, since the truth belongs to the image that was labeled.

    Args:
      rows: rows of the images.
      options: the options of the labeling job.
      directory: existing directory of the cache.
      told: receives the numbers of done and all rows.

    Raises:
      UsageError: the disk has too little space.
    """
    about = json.dumps(_about(rows, options), sort_keys=True)
    size = options.decode.height, options.decode.width, 3
    if _text(directory / ABOUT) != about:
        _create(directory, about, len(rows), size)
    array = np.memmap(directory / PIXELS, np.uint8, "r+", shape=(len(rows), *size))
    checks = np.memmap(directory / CHECKS, np.uint64, "r+", shape=(len(rows),))
    failed: dict[str, str] = json.loads(_text(directory / FAILED) or "{}")
    missing = [
        row
        for row in range(len(rows))
        if not _is_done(array, checks, row) or (checks[row] == _CANNOT and str(row) not in failed)
    ]
    done = len(rows) - len(missing)
    for number, (row, result) in enumerate(_loaded(rows, missing, options), start=1):
        if isinstance(result, str):
            failed[str(row)] = result
            _save(directory / FAILED, json.dumps(failed))
            checks[row] = _CANNOT
        else:
            array[row] = result
            checks[row] = _check(result)
        if number % _SAVED_EVERY == 0:
            array.flush()
            checks.flush()
        told(done + number, len(rows))
    array.flush()
    checks.flush()
    return Pixels(array, np.asarray(checks != _CANNOT), _problems(rows, failed))


def _about(rows: TrainingRows, options: LoadOptions) -> dict[str, object]:
    digest = hashlib.sha256()
    for name in ("image_id", "content_hash"):
        for value in rows.table.column(name).to_pylist():
            digest.update(f"{value}\n".encode())
    return {"rows": digest.hexdigest(), "decode": repr(options.decode), "decoder": DECODER_VERSION}


def _create(directory: Path, about: str, rows: int, size: tuple[int, int, int]) -> None:
    """Creates an empty cache. ``pixels.json`` is written last, so its presence proves that the cache is complete."""
    for name in (ABOUT, PIXELS, CHECKS, FAILED):
        (directory / name).unlink(missing_ok=True)
    needed = rows * (int(np.prod(size)) + 8)
    free = shutil.disk_usage(directory).free
    if free < needed + _SPARE_BYTES:
        raise UsageError(
            f"--fine_tune: {rows} decoded images need {needed / 1e9:.1f} GB in {directory}, but only {free / 1e9:.1f} "
            "GB are free: free some space, or set --output to another disk"
        )
    for name, length in ((PIXELS, rows * int(np.prod(size))), (CHECKS, rows * 8)):
        with (directory / name).open("wb") as file:
            file.truncate(length)
    _save(directory / ABOUT, about)


def _is_done(array: np.ndarray, checks: np.ndarray, row: int) -> bool:
    check = int(checks[row])
    return check == _CANNOT or (check != _NOT_THERE and check == _check(array[row]))


def _check(pixels: np.ndarray) -> int:
    # 0 and 1 have meanings of their own, so no checksum takes these values.
    return max(xxhash.xxh3_64_intdigest(np.ascontiguousarray(pixels).data), 2)


def _loaded(
    rows: TrainingRows, places: list[int], options: LoadOptions
) -> Iterator[tuple[int, np.ndarray | str]]:
    """Yields the pixels of rows, or the reason why there are none, in order; loads a window of rows at a time."""
    columns = [rows.table.column(name) for name in ("uri", "image_id", "content_hash", "location")]

    def load(row: int) -> np.ndarray | str:
        uri, image_id, content, location = (column[row].as_py() for column in columns)
        if location is None:
            return "images that are not separate files cannot be fetched again"
        result = load_one(ImageRef(uri, "", location, image_id=image_id), options)
        return _pixels(result, content)

    waiting: deque[tuple[int, Future[np.ndarray | str]]] = deque()
    threads = ThreadPoolExecutor(options.threads, "decode")
    try:
        for row in places:
            waiting.append((row, threads.submit(load, row)))
            if len(waiting) >= options.window:
                yield _first(waiting)
        while waiting:
            yield _first(waiting)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _first(waiting: deque[tuple[int, Future[np.ndarray | str]]]) -> tuple[int, np.ndarray | str]:
    row, future = waiting.popleft()
    return row, future.result()


def _pixels(result: LoadedImage | Failure | Skipped, content: str | None) -> np.ndarray | str:
    if isinstance(result, Failure):
        return f"images are not available: {result.reason.value}"
    if isinstance(result, Skipped):
        return "images were skipped"
    if content is not None and result.info.content_hash != content:
        return "images changed after they were labeled"
    return result.pixels


def _problems(rows: TrainingRows, failed: dict[str, str]) -> tuple[Problem, ...]:
    uris = rows.table.column("uri")
    found = []
    for what, count in Counter(failed.values()).most_common():
        places = [int(row) for row, why in failed.items() if why == what][:_EXAMPLES]
        found.append(
            Problem(f"{what}; they are left out", count, tuple(uris[place].as_py() for place in places))
        )
    return tuple(found)


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _save(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text)
    temporary.replace(path)
