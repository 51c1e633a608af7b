"""A file of the images with a wrong label, in falling order of their scores."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.truth.truth import Classes
from beamlabel.transforms import storage
from beamlabel.transforms.secrets.text import public_values
from beamlabel.transforms.storage.errors import is_user_error

_JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
_ENDINGS = (".csv", ".parquet", *_JSON_ENDINGS)
_IDENTITY = ("uri", "image_id")


class WrongImages:
    """Collects wrong images, about 200 bytes of memory each, and writes them.

    Args:
      path: a ``.csv``, ``.parquet`` or ``.jsonl`` file, local or in a bucket.
      multi_label: whether the truth is a list, which CSV holds as JSON.

    Raises:
      UsageError: the file exists, or has another ending.
    """

    def __init__(self, path: str, *, multi_label: bool) -> None:
        try:
            self._path = storage.absolute(path)
            is_there = storage.exists(self._path)
        except (OSError, ValueError) as error:
            raise UsageError(f"--errors {path!r}: {error}") from error
        if not path.lower().endswith(_ENDINGS):
            raise UsageError(f"--errors {path!r}: the name must end in one of {' '.join(_ENDINGS)}")
        if is_there:
            raise UsageError(f"--errors {path!r} exists; use another name or delete the file")
        self._multi_label = multi_label
        self._batches: list[pa.RecordBatch] = []
        truth = pa.list_(pa.string()) if multi_label else pa.string()
        text = pa.string()
        self._schema = pa.schema(
            {"uri": text, "image_id": text, "truth": truth, "prediction": text, "prediction_name": text,
             "score": pa.float32()}
        )  # fmt: skip

    def add(
        self,
        batch: pa.RecordBatch,
        truth: Sequence[Classes],
        predicted: Sequence[str | None],
        names: Sequence[str | None],
    ) -> None:
        """Adds wrong images.

        Args:
          batch: their rows, with ``uri``, ``score``, and ``image_id`` if there is one.
          truth: the classes of each.
          predicted, names: the best class of each, and its name if it is a number with a name.
        """
        if not batch.num_rows:
            return
        columns = [
            batch.column(name) if name in batch.schema.names else pa.nulls(batch.num_rows, pa.string())
            for name in _IDENTITY
        ]
        values = truth if self._multi_label else [one[0] for one in truth]
        kinds = self._schema
        columns += [
            pa.array(values, kinds.field("truth").type),
            pa.array(predicted, pa.string()),
            pa.array(names, pa.string()),
            batch.column("score"),
        ]
        self._batches.append(pa.RecordBatch.from_arrays(columns, schema=kinds))

    def write(self) -> int:
        """Writes the file; returns the number of its images.

        Raises:
          UsageError: the file cannot be written.
        """
        table = pa.Table.from_batches(self._batches, self._schema)
        self._batches.clear()
        table = table.sort_by([("score", "descending"), ("uri", "ascending")])
        if table.column("prediction_name").null_count == table.num_rows:
            table = table.drop_columns(["prediction_name"])
        try:
            with tempfile.TemporaryDirectory(prefix="errors-") as directory:
                local = Path(directory) / "errors"
                self._write(table, local)
                storage.write_file(self._path, local)
        except OSError as error:
            if not is_user_error(error):
                raise
            raise UsageError(f"--errors {self._path!r} cannot be written: {error}") from error
        return int(table.num_rows)

    def _write(self, table: pa.Table, local: Path) -> None:
        if self._path.lower().endswith(".parquet"):
            pq.write_table(table, local)
        elif self._path.lower().endswith(_JSON_ENDINGS):
            with local.open("w", encoding="utf-8") as file:
                for batch in table.to_batches():
                    file.writelines(
                        json.dumps(public_values(row), ensure_ascii=False) + "\n" for row in batch.to_pylist()
                    )
        else:
            if self._multi_label:
                texts = [json.dumps(one, ensure_ascii=False) for one in table.column("truth").to_pylist()]
                table = table.set_column(
                    table.schema.get_field_index("truth"), "truth", pa.array(texts, pa.string())
                )
            pa_csv.write_csv(table, local)


def best_of(predicted: pa.Array) -> list[str | None]:
    """The best class of each row as text."""

    firsts = pc.list_slice(predicted, 0, 1).to_pylist()
    return [str(one[0]) if one else None for one in firsts]
