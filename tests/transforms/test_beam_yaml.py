"""``type: LabelImages`` in Beam YAML, from CSV to Parquet with Beam's own command."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.dataset as ds
import pytest
import yaml
from apache_beam.yaml import main

from beamlabel.transforms.beam_yaml import PROVIDER
from support.jobs import TINY, label, photos, uri_list
from support.paths import ROOT

NAMES = [f"class {number}" for number in range(11)]


def python(*arguments, cwd) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def images(tmp_path):
    """A list with metadata: images, a file that is not an image, and a row without a path."""
    paths = photos(tmp_path / "photos", 4)
    paths[1].write_bytes(b"no image")
    rows = [f"{path},{number},{number / 2}" for number, path in enumerate(paths)]
    listed = tmp_path / "images.csv"
    listed.write_text("\n".join(["path,customer,price", *rows, ",4,", ""]))
    return listed


def pipeline(images, output, *, failures="LabelImages.failures", **config) -> str:
    """A pipeline from CSV to Parquet, with failures to JSON lines."""
    labels = "LabelImages" if "error_handling" in config else "LabelImages.predictions"
    steps = [
        {"type": "ReadFromCsv", "config": {"path": str(images)}},
        {
            "type": "LabelImages",
            "input": "ReadFromCsv",
            "config": {"module": TINY, "uri": "path", "class_names": NAMES, **config},
        },
        {"type": "WriteToParquet", "input": labels, "config": {"path": str(output / "labels.parquet")}},
        {"type": "WriteToJson", "input": failures, "config": {"path": str(output / "failures.json")}},
    ]
    return yaml.safe_dump({"pipeline": {"transforms": steps}, "providers": [{"include": PROVIDER}]})


def read(output):
    """The rows and the failures in the order of their customers."""
    table = ds.dataset(sorted(output.glob("labels.parquet*"))).to_table().sort_by("customer")
    lines = [line for file in output.glob("failures.json*") for line in file.read_text().splitlines()]
    return table, sorted(map(json.loads, lines), key=lambda row: row["customer"])


def assert_labeled(output, images):
    """Checks that the rows are the input's with the command's labels, and failures have their reasons."""
    table, failures = read(output)
    rows = table.to_pylist()
    assert [(row["customer"], row["price"]) for row in rows] == [(0, 0.0), (2, 1.0), (3, 1.5)]
    paths = [row["path"] for row in rows]
    job = label(output / "job", "--input", uri_list(output / "paths.txt", paths))
    for row, expected in zip(rows, job.rows, strict=True):
        assert (row["path"], row["image_id"]) == (expected["uri"], expected["image_id"])
        assert row["class_ids"] == expected["class_ids"]
        assert row["labels"] == [NAMES[number] for number in row["class_ids"]]
        assert (row["label"], row["score"]) == (row["labels"][0], row["scores"][0])
        np.testing.assert_array_equal(row["embedding"], expected["embedding"])
    assert [(row["customer"], row["stage"], row["reason"]) for row in failures] == [
        (1, "decode", "not_an_image"),
        (4, "open", "null_uri"),
    ]
    assert table.schema.field("embedding").type.value_type == "float"
    assert table.schema.field("class_ids").type.value_type == "int32"


def test_from_csv_to_parquet_by_the_command(images, tmp_path):
    """Like a user: the provider's path comes from the package."""
    provider = python("-m", "beamlabel.transforms.beam_yaml", cwd=tmp_path).strip()
    assert provider == PROVIDER
    text = pipeline(images, tmp_path, failures="LabelImages.broken", error_handling={"output": "broken"})
    (tmp_path / "label.yaml").write_text(text)
    python("-m", "apache_beam.yaml.main", "--yaml_pipeline_file=label.yaml", cwd=tmp_path)
    assert_labeled(tmp_path, images)


@pytest.mark.long
def test_outputs_have_names_without_error_handling(images, tmp_path):
    main.run([f"--yaml_pipeline={pipeline(images, tmp_path)}"])
    assert_labeled(tmp_path, images)


def test_lists_stand_for_tuples(images, tmp_path):
    main.run(
        [f"--yaml_pipeline={pipeline(images, tmp_path, image_size=[32, 32], input_range=[0, 1], top_k=2)}"]
    )
    table, _ = read(tmp_path)
    assert [len(scores) for scores in table["scores"].to_pylist()] == [2, 2, 2]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"module": "/missing/module"}, "module"),
        ({"module": None}, "module"),
        ({"uri": "url"}, "uri"),
        ({"topk": 5}, "topk"),
        ({"top_k": 12}, "top_k"),
        ({"top_k": "5"}, "top_k"),
        ({"embeddings": "no"}, "embeddings"),
        ({"class_names": NAMES[1:]}, "class_names"),
        ({"class_names": {"first": 0}}, "class_names"),
        ({"image_size": 32}, "image_size"),
        ({"input_range": [0, "1"]}, "input_range"),
        ({"max_bytes": "64 MB"}, "max_bytes"),
        ({"error_handling": "failures"}, "error_handling"),
        ({"error_handling": {}}, "error_handling"),
        ({"error_handling": {"output": "predictions"}}, "error_handling"),
        ({"error_handling": {"output": "failures", "threshold": 1}}, "error_handling"),
    ],
    ids=str,
)
def test_mistakes_are_reported_before_the_run(images, tmp_path, config, named):
    # Beam itself requires that the failures are read.
    name = config["error_handling"].get("output") if isinstance(config.get("error_handling"), dict) else None
    text = pipeline(images, tmp_path, failures=f"LabelImages.{name or 'failures'}", **config)
    with pytest.raises(Exception, match=rf"\b{named}\b"):
        main.run([f"--yaml_pipeline={text}"])
    assert not list(tmp_path.glob("labels*"))
