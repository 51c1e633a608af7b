"""Runs mutated ICC profiles through the color conversion: ``python benchmarks/mutated_profiles.py --profiles 25000``.

Each profile is converted with images of three modes: gray, RGB and CMYK. The process that converts ends with a signal
if LittleCMS crashes; another then continues after that profile. A profile depends only on its number and the seed. The
program counts crashes, results of a wrong mode or size, exceptions and the longest conversion. Prints a row in
Markdown; ends with 1 if there was a fault.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "tests")]

from mutations import MUTATORS  # noqa: E402

_MODES = {"L": (3, 200), "RGB": (3, 200), "CMYK": (3, 200)}
_STEP = 250
# A conversion of 600 pixels takes milliseconds; the tables of a profile take the most of it.
_SLOW_SECONDS = 20.0


def originals() -> tuple[bytes, ...]:
    """Returns profiles for gray, RGB and CMYK, with curves and with tables."""
    from PIL import ImageCms

    from beamlabel.transforms.decoding.picture.color import profile_of_code_points
    from support.color_profiles import cmyk_profile, gray_profile

    by_littlecms = (
        ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes() for name in ("sRGB", "LAB")
    )
    by_code_points = (profile_of_code_points(12, 13), profile_of_code_points(9, 1))
    return *by_littlecms, *filter(None, by_code_points), gray_profile(1.0), gray_profile(2.2), cmyk_profile()


def mutated(number: int, seed: int, profiles: Sequence[bytes]) -> bytes:
    """Returns the profile of this number."""
    source = random.Random(f"{seed}/{number}")
    data = bytearray(source.choice(profiles))
    for _ in range(source.choice((1, 1, 2, 4))):
        data = source.choice(MUTATORS)(data, source, source.choice(profiles)) or bytearray(b"\0")
    return bytes(data)


def work(start: int, stop: int, seed: int) -> None:
    """Converts with the profiles from ``start`` to ``stop``; prints a line of JSON for each step of profiles."""
    from PIL import Image

    from beamlabel.transforms.decoding.picture.color import to_srgb

    profiles = originals()
    images = [Image.effect_noise(size, 90).convert(mode) for mode, size in _MODES.items()]
    counts: Counter[str] = Counter()
    slowest = 0.0
    for number in range(start, stop):
        print(json.dumps({"begun": number}), flush=True)
        profile = mutated(number, seed, profiles)
        for image in images:
            begin = time.monotonic()
            try:
                result = to_srgb(image, profile)
            except Exception as error:
                counts["exceptions"] += 1
                print(json.dumps({"fault": number, "what": repr(error)}), flush=True)
                continue
            slowest = max(slowest, time.monotonic() - begin)
            counts["left" if result is None else "converted"] += 1
            if result is not None and (result.mode not in ("RGB", "RGBA") or result.size != image.size):
                counts["wrong"] += 1
                print(json.dumps({"fault": number, "what": f"{result.mode} {result.size}"}), flush=True)
        if (number + 1) % _STEP == 0 or number + 1 == stop:
            print(json.dumps({"done": number + 1, "counts": counts, "slowest": slowest}), flush=True)
            counts = Counter()


def drive(profiles: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yields the messages of the processes that convert; if one dies, the next starts after its profile."""
    start = 0
    while start < profiles:
        command = [
            sys.executable,
            __file__,
            "--child",
            str(start),
            "--profiles",
            str(profiles),
            "--seed",
            str(seed),
        ]
        begun = start
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            for line in worker.stdout:
                message = json.loads(line)
                begun = message.get("begun", begun)
                yield message
        start = profiles
        if worker.returncode > 0:
            raise RuntimeError(f"the process that converts ended with {worker.returncode}")
        if worker.returncode:
            yield {"died": begun, "code": worker.returncode}
            start = begun + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profiles", type=int, default=25_000)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--child", type=int, metavar="START", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        work(options.child, options.profiles, options.seed)
        return
    counts, slowest, crashes, begin = Counter[str](), 0.0, 0, time.monotonic()
    for message in drive(options.profiles, options.seed):
        if "done" in message:
            counts.update(message["counts"])
            slowest = max(slowest, message["slowest"])
        elif "begun" not in message:
            crashes += "died" in message
            print(json.dumps(message), file=sys.stderr, flush=True)
    print(
        "| profiles | seconds | converted | left as they were | exceptions | wrong mode or size | crashes | slowest |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    print(
        f"| {options.profiles:,} | {time.monotonic() - begin:.0f} | {counts['converted']:,} | {counts['left']:,} | "
        f"{counts['exceptions']} | {counts['wrong']} | {crashes} | {slowest:.2f} s |"
    )
    sys.exit(bool(crashes or counts["exceptions"] or counts["wrong"] or slowest > _SLOW_SECONDS))


if __name__ == "__main__":
    main()
