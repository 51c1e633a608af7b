"""The cost of many images: ``python benchmarks/scale.py [--prices FILE] [--write]``.

Computes everything from ``scale_data/measured.json``, whose numbers each name the page or the command that measured
them, and from a price list (``scale_data/prices.json``, or another of the same form). Prints Markdown; ``--write`` puts
it into benchmarks/scale.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beamlabel.transforms.inputs.sources.source import SourceOptions

HERE = Path(__file__).resolve().parent
PAGE = HERE / "scale.md"
BEGIN, END = "<!-- computed by benchmarks/scale.py -->\n", "<!-- end -->\n"

COUNTS = (10**6, 10**8, 10**9)
MOST = COUNTS[-1]
FEATURES = 1280
# The initial rates of a bucket, per second: https://cloud.google.com/storage/docs/request-rate
WRITES_A_SECOND, READS_A_SECOND = 1000, 5000
# Limits of Dataflow: https://cloud.google.com/dataflow/quotas
MOST_WORKERS, WORKER_VCPUS = 2000, 4
HOUR, GB = 3600, 1e9


class Measured:
    """The numbers, without their sources."""

    def __init__(self, path: Path) -> None:
        content: dict[str, Any] = json.loads(path.read_text())
        self.modules: list[dict[str, Any]] = content.pop("modules")
        self.value = {name: one["value"] for name, one in content.items()}

    def __getitem__(self, name: str) -> float:
        return float(self.value[name])


def units(images: int) -> int:
    """The number of units of one list or listing, with the default sizes."""
    options, count, planned = SourceOptions("/"), 0, 0
    while planned < images:
        planned += options.unit_rows(planned)
        count += 1
    return count


def core_hours(module: dict[str, Any], precision: str, images: int) -> float | None:
    """Hours of one core; None if the rate was not measured."""
    rate = module["images_a_second"].get(precision)
    return None if rate is None else images / rate * module["cores"] / HOUR


def requests(measured: Measured, images: int, *, listed: bool) -> dict[str, float]:
    """Returns requests to buckets by price class: reads (class B), writes and listings (class A), deletions (free)."""
    count = units(images)
    files = count * measured["files_a_unit"]
    writes = count * (measured["plan_requests_a_unit"] + measured["unit_writes"])
    copies = files * measured["publish_copies_a_file"]
    # Publishing deletes the staging directory: records and references.
    deletes = files * measured["publish_deletes_a_file"] + count * 2
    return {
        "reads": images + count * measured["unit_reads"],
        "writes": writes + copies + (images / 1000 if listed else 0),
        "deletes": deletes,
        "publishing": copies + deletes,
    }


def publishing_seconds(measured: Measured, images: int) -> float:
    """Seconds at the initial write rate of a bucket; deletions count as writes."""
    return requests(measured, images, listed=False)["publishing"] / WRITES_A_SECOND


def output_bytes(measured: Measured, images: int, *, embeddings: bool = True) -> float:
    """The size of the shards on the disk."""
    return images * measured["row_bytes" if embeddings else "row_bytes_without_embeddings"]


def money(measured: Measured, prices: dict[str, float], hours: float, images: int) -> dict[str, float]:
    """The cost by item, on Dataflow and on your own machines with Flink."""
    asked = requests(measured, images, listed=True)
    asking = asked["writes"] / 1000 * prices["storage_class_a_1000"]
    asking += asked["reads"] / 1000 * prices["storage_class_b_1000"]
    shuffled = images * measured["shuffled_bytes_an_image"] / GB
    dataflow = hours * (
        prices["dataflow_vcpu_hour"] + measured["worker_gb_a_vcpu"] * prices["dataflow_gb_hour"]
    )
    return {
        "dataflow": dataflow + shuffled * prices["dataflow_shuffle_gb"] + asking,
        "flink": hours * prices["vm_vcpu_hour"] + asking,
        "requests": asking,
        "month": output_bytes(measured, images) / GB * prices["storage_gb_month"],
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _modules(measured: Measured, prices: dict[str, float]) -> Iterator[str]:
    yield (
        f"| {MOST:.0e} images of {measured['image_bytes'] / 1000:.0f} KB | images/s a core | worker-hours, a core each "
        f"| hours on {MOST_WORKERS:,} workers of {WORKER_VCPUS} | Dataflow, $ | Flink, $ |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for module in measured.modules:
        for precision in ("float32", "bfloat16"):
            hours = core_hours(module, precision, MOST)
            name = f"{module['name']}, {precision}"
            if hours is None:
                yield f"| {name} | not measured | | | | |"
                continue
            paid = money(measured, prices, hours, MOST)
            cells = (
                f"{module['images_a_second'][precision] / module['cores']:.0f}",
                *map(_number, (hours, hours / MOST_WORKERS / WORKER_VCPUS, paid["dataflow"], paid["flink"])),
            )
            yield f"| {name} | {' | '.join(cells)} |"


def _sizes(measured: Measured, prices: dict[str, float]) -> Iterator[str]:
    yield "| | " + " | ".join(f"{count:.0e}" for count in COUNTS) + " |"
    yield "| --- |" + " ---: |" * len(COUNTS)
    asked = {count: requests(measured, count, listed=True) for count in COUNTS}
    # The least costly module is the yardstick of the rest.
    fastest = min(
        (module for module in measured.modules),
        key=lambda module: core_hours(module, "float32", MOST) or float("inf"),
    )
    rows: dict[str, list[float]] = {
        "work units": [units(count) for count in COUNTS],
        "files of the output, with failures in each unit": [
            units(count) * measured["files_a_unit"] for count in COUNTS
        ],
        f"output with {FEATURES} features in float32, GB": [
            output_bytes(measured, count) / GB for count in COUNTS
        ],
        "output without embeddings, GB": [
            output_bytes(measured, count, embeddings=False) / GB for count in COUNTS
        ],
        "bytes read of images, GB": [measured["image_bytes"] * count / GB for count in COUNTS],
        "reads of objects": [asked[count]["reads"] for count in COUNTS],
        "writes, copies and listings": [asked[count]["writes"] for count in COUNTS],
        "deletions": [asked[count]["deletes"] for count in COUNTS],
        "bytes shuffled, GB": [measured["shuffled_bytes_an_image"] * count / GB for count in COUNTS],
        "planning of one list by one core, minutes": [
            measured["plan_cpu_seconds_a_million"] * count / 1e6 / 60 for count in COUNTS
        ],
        "`commit.json`, MB": [measured["commit_bytes_a_unit"] * units(count) / 1e6 for count in COUNTS],
        "making it, CPU seconds": [measured["commit_cpu_seconds_a_unit"] * units(count) for count in COUNTS],
        "`_MANIFEST.json`, MB": [
            measured["manifest_bytes_a_file"] * measured["files_a_unit"] * units(count) / 1e6
            for count in COUNTS
        ],
        "reading it, CPU seconds": [
            measured["manifest_cpu_seconds_a_file"] * measured["files_a_unit"] * units(count)
            for count in COUNTS
        ],
        f"publishing at {WRITES_A_SECOND:,} writes/s, seconds": [
            publishing_seconds(measured, count) for count in COUNTS
        ],
        f"reading images at {READS_A_SECOND:,} a second, hours": [
            count / READS_A_SECOND / HOUR for count in COUNTS
        ],
        f"labeling on {READS_A_SECOND // 200} cores, hours ({fastest['name']}, float32)": [
            (core_hours(fastest, "float32", count) or 0) / (READS_A_SECOND // 200) for count in COUNTS
        ],
        "requests, $": [money(measured, prices, 0, count)["requests"] for count in COUNTS],
        "output stored, $ a month": [money(measured, prices, 0, count)["month"] for count in COUNTS],
    }
    for name, values in rows.items():
        yield f"| {name} | {' | '.join(map(_number, values))} |"


def _prices(listed: dict[str, Any]) -> Iterator[str]:
    yield f"| price, {listed['currency']}, {listed['region']}, noted {listed['date']} | | from |"
    yield "| --- | ---: | --- |"
    for name, one in listed["prices"].items():
        yield f"| `{name}` | {one['price']:g} | {one['source']} |"


def _sources(path: Path) -> Iterator[str]:
    content = json.loads(path.read_text())
    yield "| measured | | by |\n| --- | ---: | --- |"
    for module in content.pop("modules"):
        rates = ", ".join(f"{rate:g} in {precision}" for precision, rate in module["images_a_second"].items())
        yield f"| {module['name']}, images/s on {module['cores']} cores | {rates} | {module['source']} |"
    for name, one in content.items():
        yield f"| `{name}` | {one['value']:g} | {one['source']} |"


def page(prices_path: Path, measured_path: Path) -> str:
    """Returns the computed part of benchmarks/scale.md."""
    measured, listed = Measured(measured_path), json.loads(prices_path.read_text())
    prices = {name: float(one["price"]) for name, one in listed["prices"].items()}
    parts = (
        _modules(measured, prices),
        _sizes(measured, prices),
        _prices(listed),
        _sources(measured_path),
    )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prices", type=Path, default=HERE / "scale_data" / "prices.json")
    parser.add_argument("--measured", type=Path, default=HERE / "scale_data" / "measured.json")
    parser.add_argument("--write", action="store_true", help="write the result into benchmarks/scale.md")
    options = parser.parse_args()
    text = page(options.prices, options.measured)
    if not options.write:
        print(text, end="")
        return
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
