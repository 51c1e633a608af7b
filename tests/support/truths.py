"""Rows of an output as a truth sees them, and truths of small files."""

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
    """Rows of these images, as a run in ``base`` writes them, and kept columns."""
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
    """What truths say of rows, and the truth for further questions.

    Args:
      batch: all rows.
      truths: as ``--truth`` has them.
      listed: the folder that the run labeled; None: a list of URIs.
      scan: whether all rows can be read before.
      options: further ones.
    """
    files = [{"path": listed, "format": "images"}] if listed else [{"path": "/in.txt", "format": "text"}]
    manifest = {"options": {"base_dir": BASE}, "input_files": files}

    def batches(columns: Sequence[str]):
        # In pieces, so that what is in one has to be remembered in the next.
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
    """How many things are wrong of the kinds whose sentence has a word."""
    return sum(problem.count for problem in truth.problems() if word in problem.what)
