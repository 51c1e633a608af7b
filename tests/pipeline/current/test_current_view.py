"""The SQL of docs/nightly.md, the table of ``compact`` and the counts of ``--skip_labeled`` over the same nights."""

import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.current.outputs import Output
from beamlabel.pipeline.current.read import parquet_batches, wanted
from beamlabel.pipeline.current.select import select
from beamlabel.pipeline.earlier import events
from beamlabel.pipeline.earlier.wanted import LASTING
from beamlabel.transforms.inputs.selection import stat_hash
from beamlabel.transforms.records import Reason
from beamlabel.transforms.rows.deleted import DELETED_SCHEMA
from beamlabel.transforms.rows.times import iso_time
from support.current_view import current_view

NIGHTS, IMAGES, MICROSECONDS = 6, 150, 1_700_000_000_000_000
ROWS = pa.schema(
    [
        ("uri", pa.string()), ("image_id", pa.string()), ("labeled_at", pa.timestamp("us", "UTC")),
        ("content_hash", pa.string()), ("source_version", pa.string()), ("source_bytes", pa.int64()),
    ]
)  # fmt: skip
REASONS = [reason.value for reason in Reason]


def write(directory, at, rows, failures, tombstones):
    """Writes an output like a run, with only the columns that decide which rows are current."""
    for name in ("", "_failures", "_deleted"):
        (directory / name).mkdir()
    tables = {
        ("data", "part-0.parquet"): pa.Table.from_pylist([{**row, "labeled_at": at} for row in rows], ROWS),
        ("deleted", "_deleted/part-0.parquet"): pa.Table.from_pylist(
            [{"image_id": one, "uri": one, "deleted_at": at, "run_id": "run"} for one in tombstones], DELETED_SCHEMA
        ),
    }  # fmt: skip
    for (_, name), table in tables.items():
        pq.write_table(table, directory / name)
    lines = [json.dumps({**failure, "failed_at": iso_time(at)}) for failure in failures]
    (directory / "_failures/part-0.jsonl").write_text("".join(f"{line}\n" for line in lines))
    files = [{"kind": kind, "name": name, "rows": table.num_rows} for (kind, name), table in tables.items()]
    files.append({"kind": "failures", "name": "_failures/part-0.jsonl", "rows": len(lines)})
    return Output(str(directory), {"labeled_at": at, "run_id": directory.name, "files": files})


def live(directory, seed):
    """Simulates nights with random events for images; returns the outputs and the events."""
    chance = random.Random(seed)
    outputs, told = [], []
    for night in range(NIGHTS):
        at = MICROSECONDS + night
        rows, failures, tombstones = [], [], []
        for number in range(IMAGES):
            image = f"{(number << 120) + 1:032x}"
            content, version, size = (chance.choice(values) for values in ("ab", "12", (5, 6)))
            facts = {
                "image_id": image,
                "content_hash": content * 32,
                "source_version": version,
                "source_bytes": size,
            }
            happened = chance.choice(["nothing", "row", "row", "failure", "failure", "tombstone"])
            if happened == "row":
                rows.append({**facts, "uri": image})
                kind = events.SAME_ROW
            elif happened == "failure":
                facts |= dict.fromkeys(
                    chance.choice([[], ["content_hash"], ["content_hash", "source_version"], [*facts][1:]])
                )
                failures.append({**facts, "reason": chance.choice(REASONS)})
                reason = failures[-1]["reason"]
                kind = events.NOT_FOUND if reason == "not_found" else events.PASSING_FAILURE
                kind = events.KNOWN_FAILURE if reason in LASTING else kind
            elif happened == "tombstone":
                tombstones.append(image)
                kind = events.DELETED
            else:
                continue
            event = np.zeros(1, events.EVENT)
            event["high"], event["low"] = events.ids_of([image])[0]
            event["kind"], event["at"] = kind, at
            size = facts["source_bytes"]
            event["stat"] = 0 if size is None else stat_hash(size, facts["source_version"])
            event["content"] = events.contents_of([facts["content_hash"]])
            told.append(event)
        outputs.append(write(directory / str(night), at, rows, failures, tombstones))
    return outputs, np.concatenate(told)


@pytest.mark.parametrize("seed", range(8))
def test_they_agree(tmp_path, seed):
    outputs, told = live(tmp_path, seed)
    (scratch := tmp_path / "scratch").mkdir()
    selection = select(outputs, lambda output, file: True, scratch)
    names = ["image_id", "labeled_at", "content_hash", "source_version"]
    kept = [
        tuple(row.values())
        for source in selection.data
        for batch in parquet_batches(source, wanted(selection.is_kept, source), names)
        for row in batch.to_pylist()
    ]
    view = current_view(tmp_path / str(night) for night in range(NIGHTS))
    view.execute("SET TimeZone = 'UTC'")
    shown = view.execute(f"SELECT {', '.join(names)} FROM current_labels").fetchall()
    times = {row[1].timestamp() for row in kept}
    assert 20 < len(kept) < IMAGES and len(times) > 2, "neither all nor none, and not only the last night's"
    assert selection.rows["failed_since"] > 10 and selection.rows["deleted"] > 10
    assert sorted((image, at.timestamp(), *rest) for image, at, *rest in shown) == sorted(
        (image, at.timestamp(), *rest) for image, at, *rest in kept
    )
    labeled = {f"{one['high']:016x}{one['low']:016x}" for one in events.newest(told).labeled}
    # Images without a row in the table are labeled again; a failure with a size but no version makes it cautious.
    assert labeled <= {image for image, *_ in kept} and len(labeled) > 0.9 * len(kept)
