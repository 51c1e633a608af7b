"""Made-up predictions, failures and units of every kind and type for the tests of the sink."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from beamlabel.transforms.records import (
    Failure,
    ImageInfo,
    ImageRef,
    InputFile,
    Prediction,
    Reason,
    Stage,
    UnitEnd,
    WorkUnit,
)
from beamlabel.transforms.rows.metadata_keys import MODULE_HANDLE
from beamlabel.transforms.rows.schema import OutputSpec
from beamlabel.transforms.storage.identity import image_id

NAMES = ("background", "tench", "goldfish", "Weißer Hai", "tiger shark")
DIM = 8
TOP_K = 3

# One kept column of every type with a tf.Example counterpart, each with a null.
KEPT: Mapping[str, tuple[pa.DataType, Sequence[object]]] = {
    "note": (pa.string(), ("ünï", None, "")),
    "raw": (pa.binary(), (b"\xff\x00", b"", None)),
    "flag": (pa.bool_(), (True, None, False)),
    "small": (pa.int8(), (-128, None, 127)),
    "big": (pa.int64(), (2**63 - 1, -(2**63), None)),
    "unsigned": (pa.uint32(), (2**32 - 1, None, 0)),
    "half": (pa.float32(), (0.5, None, -1.25)),
    "price": (pa.float64(), (0.25, None, 1e9)),
    "taken": (
        pa.timestamp("us", "UTC"),
        (dt.datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=dt.timezone.utc), None, None),
    ),
    "day": (pa.date32(), (dt.date(1969, 12, 31), None, dt.date(2026, 1, 1))),
    "tags": (pa.list_(pa.field("element", pa.string())), (["a", "b"], [], None)),
    "counts": (pa.list_(pa.field("element", pa.int16())), ([1, -2, 3], None, [])),
}

FULL = OutputSpec(
    kept_fields=tuple((name, kind) for name, (kind, _) in KEPT.items()),
    has_labels=True,
    top_k=TOP_K,
    num_classes=len(NAMES),
    embedding_dim=DIM,
    module_handle="https://tfhub.dev/some/module/1",
    module_fingerprint="f" * 64,
    preprocessing_id="0" * 64,
    metadata={MODULE_HANDLE: "https://tfhub.dev/some/module/1"},
)
PLAIN = OutputSpec(embedding_dim=DIM, module_fingerprint="f", preprocessing_id="p")


def prediction(row: int, *, unit_id: str = "00000-000000000000", spec: OutputSpec = FULL) -> Prediction:
    """A prediction that depends only on the row and the spec."""
    random = np.random.default_rng(row)
    ids = random.permutation(len(NAMES))[:TOP_K].astype(np.int32) if spec.num_classes else None
    scores = np.sort(random.random(TOP_K, np.float32))[::-1] if spec.num_classes else None
    kept = (
        tuple(pa.array([values[row % len(values)]], kind) for kind, values in KEPT.values())
        if spec.kept_fields
        else ()
    )
    uri = f"gs://bucket/Bäume {row}.jpg"
    return Prediction(
        ref=ImageRef(uri, f"/in/list.txt#{row}", uri, row, unit_id, None, kept, image_id=image_id(uri)),
        info=ImageInfo(
            640 + row, 480, "jpeg", 1000 + row, None if row % 2 else f"generation-{row}", f"{row:032x}"
        ),
        class_ids=ids,
        scores=scores,
        labels=tuple(NAMES[i] for i in ids) if spec.has_labels and ids is not None else None,
        embedding=random.standard_normal(DIM).astype(np.float32) if spec.embedding_dim else None,
    )


def failure(row: int, *, unit_id: str = "00000-000000000000", reason: Reason = Reason.NOT_FOUND) -> Failure:
    detail = f"no such file: {row}"
    return Failure(f"missing-{row}.jpg", f"/in/list.txt#{row}", Stage.FETCH, reason, detail, row, unit_id)


def end(sent: int, *, unit_id: str = "00000-000000000000", skipped: int = 0, start: int = 0) -> UnitEnd:
    file = InputFile("/in/list.txt", "text")
    return UnitEnd(WorkUnit(unit_id, file, start, start + sent + skipped, True), sent, skipped)


# The bundle of the running test. ``beam.Create`` would pickle every element and infer its type, which takes a minute
# for some thousand predictions.
BUNDLE: list[Prediction | Failure | UnitEnd] = []


def held_bundle(_: object) -> list[Prediction | Failure | UnitEnd]:
    """The elements of ``BUNDLE`` in a pipeline that runs in this process."""
    return list(BUNDLE)
