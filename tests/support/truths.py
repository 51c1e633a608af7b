"""Rows of an output as a truth gets them, and truths of small files."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from beamlabel.pipeline.truth.open_truth import open_truth
from beamlabel.pipeline.truth.options import TruthOptions
from beamlabel.pipeline.truth.truth import Truth
from beamlabel.transforms.storage.identity import image_id
from beamlabel.transforms.storage.uris import resolve

BASE = "/data"


def rows(*uris: str, base: str = BASE, **kept) -> pa.RecordBatch:
    """Rows of these images with kept columns, as a run in ``base`` writes them."""
    return pa.record_batch(
        {
            "uri": list(uris),
            "ref_id": [f"/in.txt#{number}" for number in range(len(uris))],
            "image_id": [image_id(resolve(uri, base)) for uri in uris],
            **kept,
        }
    )


def truth_of(
    batch: pa.RecordBatch, *truths: str | Path, listed: str | None = None, scan: bool = True, **options
) -> tuple[list, Truth]:
    """The true classes of rows, and the truth object for further questions.

    Args:
      batch: All rows.
      truths: The values of ``--truth``.
      listed: The directory that the run labeled; None for a list of URIs.
      scan: Whether all rows can be read beforehand.
      options: Further options.
    """
    files = [{"path": listed, "format": "images"}] if listed else [{"path": "/in.txt", "format": "text"}]
    manifest = {"options": {"base_dir": BASE}, "input_files": files}

    def batches(columns: Sequence[str]):
        # In pieces, so that the truth must keep state between them.
        for start in range(0, batch.num_rows, 2):
            yield batch.slice(start, 2).select(list(columns))

    opened = open_truth(
        TruthOptions(truth=tuple(map(str, truths)), **options),
        batch.schema,
        manifests=[manifest],
        batches=batches if scan else None,
    )
    return [one for part in batches(opened.columns) for one in opened.of_batch(part)], opened


def told(truth: Truth, word: str) -> int:
    """The number of problems of the kinds whose message contains a word."""
    return sum(problem.count for problem in truth.problems() if word in problem.what)
