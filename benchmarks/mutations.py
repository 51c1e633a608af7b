"""Runs mutated images through the steps of a job: ``python benchmarks/mutations.py --images 200000``.

``LoadImages`` decodes them, in blocks, as in a worker: fast formats in its threads, all others in children with limits.
An image depends only on its number and the seed, so two runs decode the same images and end with the same digest;
``--only NUMBER`` writes one image to a file. The program counts faults: worker processes that died, images with no
outcome or with two, pixels of a wrong shape, errors that are not a reason of an image, decodes that did not end at
their deadline, and growth of memory, threads, descriptors and children. Linux only. Prints a row in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "tests")]

BLOCK, BUNDLE = 128, 2048
SIDE, MAX_PIXELS = 32, 4_000_000
# Time to kill a child and to wait for it, on a busy machine.
GRACE_SECONDS = 10.0
_EDGES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    (1 << 63) - 1,
    (1 << 64) - 1,
)


def flipped(data: bytearray, source: random.Random, _: bytes) -> bytearray:
    """Flips some bits, mostly near the beginning, in the headers."""
    for _ in range(source.choice((1, 1, 2, 8, 64))):
        at = source.randrange(min(len(data), source.choice((32, 256, len(data)))))
        data[at] ^= 1 << source.randrange(8)
    return data


def cut(data: bytearray, source: random.Random, _: bytes) -> bytearray:
    """Keeps only the beginning."""
    return data[: source.randrange(1, len(data) + 1)]


def spliced(data: bytearray, source: random.Random, other: bytes) -> bytearray:
    """Joins the beginning of one file and the end of another, or inserts a part of one into the other."""
    at, begin = source.randrange(len(data)), source.randrange(len(other))
    if source.random() < 0.5:
        return data[:at] + other[begin:]
    return data[:at] + other[begin : begin + source.randrange(1, 200)] + data[at:]


def renumbered(data: bytearray, source: random.Random, _: bytes) -> bytearray:
    """Replaces a number of 1 to 8 bytes, such as a length, with an edge value or a neighbor."""
    for _ in range(source.choice((1, 1, 3))):
        kind = source.choice(("B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
        size = struct.calcsize(kind)
        if len(data) < size:
            continue
        at = source.randrange(min(len(data) - size + 1, source.choice((64, 512, len(data)))))
        (value,) = struct.unpack_from(kind, data, at)
        value = source.choice((*_EDGES, value + 1, value - 1, value * 2, len(data), len(data) - at))
        struct.pack_into(kind, data, at, value % (1 << 8 * size))
    return data


def duplicated(data: bytearray, source: random.Random, _: bytes) -> bytearray:
    """Repeats, moves or removes a part, such as a chunk or a segment."""
    begin = source.randrange(len(data))
    part = data[begin : begin + source.choice((4, 12, 25, 64, 600))]
    if source.random() < 0.3:
        return data[:begin] + data[begin + len(part) :]
    at = begin if source.random() < 0.6 else source.randrange(len(data))
    return data[:at] + part * source.choice((1, 1, 2, 50)) + data[at:]


def filled(data: bytearray, source: random.Random, _: bytes) -> bytearray:
    """Overwrites a stretch with one value or with noise."""
    begin = source.randrange(len(data))
    size = min(source.choice((1, 8, 100, 1000)), len(data) - begin)
    noise = source.random() < 0.5
    data[begin : begin + size] = source.randbytes(size) if noise else bytes((source.choice((0, 255)),)) * size
    return data


def with_right_checksums(data: bytearray, source: random.Random, other: bytes) -> bytearray:
    """Applies another mutation, then corrects the checksums of a PNG's chunks."""
    changed = source.choice((flipped, renumbered, duplicated, filled))(data, source, other)
    at = 8
    while changed.startswith(b"\x89PNG") and at + 12 <= len(changed):
        end = at + 8 + int.from_bytes(changed[at : at + 4], "big")
        if end + 4 > len(changed):
            break
        changed[end : end + 4] = zlib.crc32(changed[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return changed


MUTATORS: tuple[Callable[[bytearray, random.Random, bytes], bytearray], ...] = (
    flipped, cut, spliced, renumbered, duplicated, filled, with_right_checksums,
)  # fmt: skip


def originals() -> tuple[bytes, ...]:
    """Returns a file of every decoded variant, and larger files of each format."""
    from support.corpus import corpus
    from support.images import every_kind

    return (*(file.data for file in corpus()), *every_kind().values())


def mutated(number: int, seed: int, files: Sequence[bytes]) -> bytes:
    """Returns the image of this number."""
    source = random.Random(f"{seed}/{number}")
    data = bytearray(source.choice(files))
    for _ in range(source.choice((1, 1, 1, 2, 4))):
        data = source.choice(MUTATORS)(data, source, source.choice(files)) or bytearray(b"\0")
    return bytes(data)


def usage() -> dict[str, int]:
    """Returns resident memory in KB, threads and descriptors of this process, and its number of children."""
    status = Path("/proc/self/status").read_text()
    facts = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    kids = sum(len(path.read_text().split()) for path in children.parents[1].glob("*/children"))
    descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return {
        "memory_kb": int(facts["VmRSS"].split()[0]), "peak_kb": int(facts["VmHWM"].split()[0]),
        "threads": int(facts["Threads"]), "descriptors": descriptors, "children": kids,
    }  # fmt: skip


def _told(element: Any, counts: Counter[str]) -> tuple[int, str, bytes]:
    """Returns an image's number, its outcome and its content for the digest; counts and prints its faults."""
    from beamlabel.transforms.records import Failure, LoadedImage, Reason

    if isinstance(element, LoadedImage):
        shape = element.pixels.shape, str(element.pixels.dtype), element.pixels.flags.c_contiguous
        sides = element.info.width, element.info.height
        if shape != ((SIDE, SIDE, 3), "uint8", True) or not 0 < sides[0] * sides[1] <= MAX_PIXELS:
            counts["wrong shape"] += 1
            print(json.dumps({"wrong": element.ref.row, "what": f"{shape} of {sides}"}), flush=True)
        return element.ref.row, "decoded", element.pixels.tobytes()
    assert isinstance(element, Failure)
    outcome = element.reason.value
    if element.reason is Reason.INTERNAL_ERROR or not element.detail:
        counts["no reason"] += 1
        print(json.dumps({"wrong": element.row, "what": element.detail}), flush=True)
    elif element.reason in (Reason.DECODE_ERROR, Reason.DECODE_TIMEOUT):
        print(json.dumps({"noted": element.row, "what": f"{outcome}: {element.detail}"}), flush=True)
    return element.row, outcome, outcome.encode()


def work(start: int, stop: int, seed: int, deadline: float) -> None:
    """Decodes the images from ``start`` to ``stop`` like a worker; prints their outcomes after each bundle."""
    import apache_beam as beam
    import xxhash
    from apache_beam.transforms.window import GlobalWindow

    from beamlabel.transforms.decoding.decode import DecodeOptions
    from beamlabel.transforms.loading import load_images
    from beamlabel.transforms.loading.fetch import FetchOptions
    from beamlabel.transforms.loading.load_options import LoadOptions
    from beamlabel.transforms.records import Block, ImageRef

    assert beam.__version__
    decode, slowest = load_images.decode, [0.0]

    def timed(data: bytes, options: DecodeOptions) -> Any:
        begin = time.monotonic()
        try:
            return decode(data, options)
        finally:
            slowest[0] = max(slowest[0], time.monotonic() - begin)

    load_images.decode = timed  # type: ignore[attr-defined]
    options = LoadOptions(
        FetchOptions(), DecodeOptions(SIDE, SIDE, max_pixels=MAX_PIXELS, decode_deadline=deadline)
    )
    step = load_images.LoadImagesDoFn(options)
    step.setup()
    files, window = originals(), GlobalWindow()
    for first in range(start, stop, BUNDLE):
        numbers = range(first, min(first + BUNDLE, stop))
        print(json.dumps({"begun": first}), flush=True)
        slowest[0], digest = 0.0, 0
        counts: Counter[str] = Counter()
        came: Counter[int] = Counter()
        step.start_bundle()
        out: list[Any] = []
        for at in range(numbers.start, numbers.stop, BLOCK):
            block = Block(
                ImageRef(str(number), str(number), str(number), number, data=mutated(number, seed, files))
                for number in range(at, min(at + BLOCK, numbers.stop))
            )
            out.extend(step.process(block, timestamp=0, window=window))
        out.extend(step.finish_bundle())
        for element in (element for value in out for element in value.value):
            row, outcome, content = _told(element, counts)
            counts[outcome] += 1
            came[row] += 1
            digest ^= xxhash.xxh3_64_intdigest(b"%d:" % row + content)
        counts["lost"] += sum(number not in came for number in numbers)
        counts["doubled"] += sum(times - 1 for times in came.values())
        print(json.dumps({
            "done": numbers.stop, "counts": counts, "digest": digest, "slowest": slowest[0], **usage(),
        }), flush=True)  # fmt: skip
    step.teardown()


def drive(images: int, seed: int, deadline: float, log: Path | None) -> Iterator[dict[str, Any]]:
    """Yields the messages of workers, one after the other; if one dies, the next starts after its bundle."""
    start = 0
    while start < images:
        command = [
            sys.executable, __file__, "--child", "--start", str(start), "--images", str(images), "--seed", str(seed),
            "--deadline", str(deadline),
        ]  # fmt: skip
        begun = start
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            for line in worker.stdout:
                told = json.loads(line)
                begun, start = told.get("begun", begun), told.get("done", start)
                if log is not None:
                    with log.open("a") as file:
                        file.write(line)
                yield told
        if worker.returncode:
            yield {"died": begun, "code": worker.returncode}
            start = begun + BUNDLE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--deadline", type=float, default=20.0, help="seconds of --decode_deadline")
    parser.add_argument("--log", type=Path, help="file for a JSON line for each event")
    parser.add_argument(
        "--only", type=int, metavar="NUMBER", help="write this image to mutated-NUMBER and end"
    )
    parser.add_argument("--start", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only is not None:
        Path(f"mutated-{options.only}").write_bytes(mutated(options.only, options.seed, originals()))
        return
    if options.child:
        work(options.start, options.images, options.seed, options.deadline)
        return
    sys.exit(not report(options))


def report(options: argparse.Namespace) -> bool:
    """Runs everything and prints the row; returns whether there were no faults."""
    begin, counts, digest, slowest, deaths = time.monotonic(), Counter[str](), 0, 0.0, 0
    measured: list[dict[str, Any]] = []
    for told in drive(options.images, options.seed, options.deadline, options.log):
        if "done" in told:
            counts.update(told["counts"])
            digest ^= told["digest"]
            slowest = max(slowest, told["slowest"])
            measured.append(told)
            print(f"{told['done']:,} {json.dumps(told)}", file=sys.stderr, flush=True)
        elif "begun" not in told:
            deaths += "died" in told
            print(json.dumps(told), file=sys.stderr, flush=True)
    # Caches and pools fill up in the first tenth.
    settled, last = measured[len(measured) // 10], measured[-1]
    grown = {name: last[name] - settled[name] for name in ("memory_kb", "threads", "descriptors", "children")}
    hangs = int(slowest > options.deadline + GRACE_SECONDS)
    bad = {name: counts.pop(name, 0) for name in ("lost", "doubled", "wrong shape", "no reason")}
    images = sum(counts.values())
    print("| images | seconds | decoded | refused, by reason | processes that died | lost | doubled | wrong shape | "
          "no reason | slowest | peak memory | growth after the first tenth | digest |")  # fmt: skip
    print("| ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |")
    reasons = ", ".join(f"{name} {count:,}" for name, count in counts.most_common() if name != "decoded")
    growth = ", ".join(f"{name} {count:+,}" for name, count in grown.items())
    print(
        f"| {images:,} | {time.monotonic() - begin:.0f} | {counts['decoded']:,} | {reasons} | {deaths} | "
        + " | ".join(str(bad[name]) for name in bad)
        + f" | {slowest:.1f} s | {max(one['peak_kb'] for one in measured) >> 10} MB | {growth} | {digest:016x} |"
    )
    return not (deaths or hangs or any(bad.values()))


if __name__ == "__main__":
    main()
