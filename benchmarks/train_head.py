"""Time and memory of training a head, and its accuracy compared with scikit-learn's best logistic regression.

    python benchmarks/train_head.py --rows 100000
    python benchmarks/train_head.py --rows 4000 --sklearn

Rows are synthetic: published outputs with embeddings of a hard mixture, several modes a class, rectified like a
network's features. It measures all of ``beamlabel train`` except the module: rows, features, head, findings, suspects.
Memory is ``RssAnon``, which the kernel cannot reclaim, and ``VmRSS``, which includes pages of mapped files; both are
sampled ten times a second.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beamlabel.pipeline.train.findings.evaluate_head import findings_of
from beamlabel.pipeline.train.findings.suspects import suspects_of
from beamlabel.pipeline.train.head.fit_head import fit_head, probabilities_of
from beamlabel.pipeline.train.rows.features import features_of
from beamlabel.pipeline.train.rows.options import HeadOptions, RowsOptions
from beamlabel.pipeline.train.rows.rows import TrainingRows, gather_rows
from beamlabel.pipeline.train.rows.split import TEST, TRAIN, VALIDATION
from beamlabel.pipeline.truth.options import TruthOptions
from beamlabel.transforms.output_spec import canonical_sha256
from beamlabel.transforms.rows import metadata_keys, schema

SHARD_ROWS = 20_000
RUN_ID = "0" * 12
_LATENT, _MODES = 200, 4


def features(
    rows: int, classes: int, dimension: int, spread: float, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields features and classes, a shard at a time; the same for the same arguments.

    Args:
      spread: spread of the modes; a larger spread is easier.
    """
    random = np.random.default_rng(seed)
    modes = random.normal(size=(classes, _MODES, _LATENT)).astype(np.float32) * spread
    mixing = random.normal(size=(_LATENT, dimension)).astype(np.float32)
    mixing *= np.arange(1, _LATENT + 1, dtype=np.float32)[:, None] ** -0.7
    noise = (0.3 * np.exp(random.normal(size=dimension))).astype(np.float32)
    for start in range(0, rows, SHARD_ROWS):
        count = min(SHARD_ROWS, rows - start)
        truth = random.integers(0, classes, count)
        latent = modes[truth, random.integers(0, _MODES, count)]
        latent = latent + random.standard_normal((count, _LATENT), np.float32)
        found = latent @ mixing + noise * random.standard_normal((count, dimension), np.float32)
        yield np.maximum(found - 0.3, 0), truth


def write_output(directory: Path, rows: int, classes: int, dimension: int, spread: float, seed: int) -> None:
    """Writes a published output with these rows and a kept column ``truth``."""
    directory.mkdir(parents=True)
    preprocessing = {
        "height": 224,
        "width": 224,
        "crop": None,
        "color_profile": "convert",
        "input_range": [0, 1],
    }
    files, first = [], 0
    for number, (values, truth) in enumerate(features(rows, classes, dimension, spread, seed)):
        ids = [
            hashlib.blake2b(str(first + one).encode(), digest_size=16).hexdigest()
            for one in range(len(truth))
        ]
        columns = {
            "uri": [f"/photos/{one}.jpg" for one in ids],
            "ref_id": ids,
            "truth": [f"class {one:03d}" for one in truth],
            "image_id": ids,
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), dimension),
            "content_hash": ids,
            "labeled_at": pa.array(np.zeros(len(ids), np.int64)).cast(pa.timestamp("us", "UTC")),
        }
        name = f"part-{RUN_ID}-{number:05d}.parquet"
        pq.write_table(
            pa.table(columns), directory / name, compression="none", use_dictionary=False, row_group_size=1024
        )
        files.append(
            {"name": name, "kind": "data", "rows": len(ids), "bytes": (directory / name).stat().st_size}
        )
        first += len(ids)
    metadata = {
        metadata_keys.SCHEMA_VERSION: schema.CURRENT_SCHEMA_VERSION,
        metadata_keys.MODULE_HANDLE: "synthetic",
        metadata_keys.MODULE_FINGERPRINT: "0" * 64,
        metadata_keys.PREPROCESSING: json.dumps(preprocessing),
        metadata_keys.EMBEDDING_DIM: str(dimension),
        metadata_keys.EMBEDDING_NORMALIZED: "false",
        metadata_keys.FEATURES_ID: canonical_sha256({**preprocessing, "features_of": "synthetic"}),
    }
    manifest = {
        "schema_version": schema.CURRENT_SCHEMA_VERSION, "run_id": RUN_ID, "plan_id": RUN_ID, "metadata": metadata,
        "rows": {"input": rows, "predicted": rows, "failed": 0, "skipped": 0}, "files": files, "labeled_at": 0,
        "started_at": "2026-01-01T00:00:00+00:00", "options": {"base_dir": "/"}, "kept_columns": {"truth": "string"},
        "preprocessing": preprocessing,
    }  # fmt: skip
    (directory / "_MANIFEST.json").write_text(json.dumps(manifest))


class Peak(threading.Thread):
    """The peak anonymous memory and the peak resident memory of this process, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.anonymous = self.resident = 0
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.1):
            self.look()

    def look(self) -> None:
        status = Path("/proc/self/status").read_text()
        self.anonymous = max(self.anonymous, int(status.partition("RssAnon:")[2].split()[0]) * 1024)
        self.resident = max(self.resident, int(status.partition("VmRSS:")[2].split()[0]) * 1024)

    def stop(self) -> None:
        self._done.set()
        self.look()


@contextmanager
def timed(what: str, found: dict[str, object]) -> Iterator[None]:
    wall, cpu = time.monotonic(), time.process_time()
    yield
    found[what] = {
        "seconds": round(time.monotonic() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }
    print(what, found[what], flush=True)


def sklearn_best(values: np.ndarray, rows: TrainingRows, places: np.ndarray) -> tuple[float, float]:
    """Returns the best accuracy on the test images over all strengths, and its strength C."""
    from sklearn.linear_model import LogisticRegression

    train, test = values[places], values[rows.split == TEST]
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation[deviation < 1e-6] = 1
    train, test = (train - mean) / deviation, (test - mean) / deviation
    scores = []
    for strength in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0):
        model = LogisticRegression(C=strength, max_iter=1000).fit(train, rows.targets[places])
        scores.append((float(model.score(test, rows.targets[rows.split == TEST])), strength))
    return max(scores)


def measure(directory: Path, with_sklearn: bool) -> dict[str, object]:
    """Trains on an output and returns its cost and accuracy."""
    peak, found = Peak(), {}
    peak.start()
    with timed("rows", found):
        rows = gather_rows(RowsOptions(outputs=(str(directory),)), TruthOptions(truth=("truth",)))
    with timed("features", found):
        values = features_of(rows)
    with timed("head", found):
        fitted = fit_head(values, rows, HeadOptions(), lambda text: print(" ", text, flush=True))
    with timed("findings", found):
        test = np.flatnonzero(rows.split == TEST)
        findings = findings_of(
            probabilities_of(values, fitted.head),
            rows,
            temperature=fitted.temperature,
            uncalibrated=probabilities_of(values, fitted.head, fitted.temperature, places=test),
            suspects=suspects_of(fitted.out_of_sample, rows, 100),
        )
    peak.stop()
    found["peak_anonymous_gb"] = round(peak.anonymous / 1e9, 2)
    found["peak_resident_gb"] = round(peak.resident / 1e9, 2)
    found |= {"rows_used": len(rows), "accuracy": findings.accuracy["test"].value, "l2": fitted.l2,
              "epochs": fitted.epochs, "temperature": fitted.temperature}  # fmt: skip
    if findings.calibration:
        found["calibration_error"] = [findings.calibration.error_before, findings.calibration.error]
    if with_sklearn:
        found["sklearn_train"] = sklearn_best(np.asarray(values), rows, np.flatnonzero(rows.split == TRAIN))
        both = np.flatnonzero((rows.split == TRAIN) | (rows.split == VALIDATION))
        found["sklearn_train_and_validation"] = sklearn_best(np.asarray(values), rows, both)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--dimension", type=int, default=1280)
    parser.add_argument("--spread", type=float, default=0.44)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--sklearn", action="store_true", help="compare with scikit-learn, for some thousand rows"
    )
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="train-head-"))
    try:
        write_output(
            directory / "labels",
            options.rows,
            options.classes,
            options.dimension,
            options.spread,
            options.seed,
        )
        print(json.dumps(measure(directory / "labels", options.sklearn), indent=1))
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
