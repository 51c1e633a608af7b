"""Blocks: the number of Python elements per image, and equal results."""

from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beamlabel.pipeline.job.graph import build
from beamlabel.transforms.label_images import Label
from beamlabel.transforms.records import Failure, ImageRef, Prediction
from support.collect import Collect
from support.jobs import TINY, label, photos, prepared, uri_list

IMAGES, UNITS = 400, 2
ELEMENTS = "beam:metric:element_count:v1"


@pytest.fixture(scope="module")
def uris(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("blocks")
    some = photos(directory / "photos", 20)
    missing = [directory / f"missing {number}.png" for number in range(20)]
    return uri_list(directory / "list.txt", [*some, *missing] * (IMAGES // 40))


def test_few_elements_an_image_go_through_python(uris: Path, tmp_path: Path) -> None:
    """Each step of the fused stage takes blocks: 400 references in two units make less than a tenth of the elements."""
    job = prepared(
        "--input", uris, "--output", tmp_path / "out", "--module", TINY, "--shard_rows", IMAGES // UNITS
    )
    pipeline = beam.Pipeline(runner=FnApiRunner())
    build(pipeline, job)
    result = pipeline.run()
    result.wait_until_finish()
    counts = {
        info.labels["PCOLLECTION"]: int.from_bytes(info.payload, "little")
        for info in result.monitoring_infos()
        if info.urn == ELEMENTS
    }
    assert len(counts) > 5  # the steps are counted at all
    assert sum(counts.values()) < IMAGES / 4


@pytest.fixture(scope="module")
def expected(uris: Path, tmp_path_factory) -> tuple[dict[str, Prediction], set[str]]:
    """The results of the one-element form of the steps: predictions, and ids of failures."""
    job = prepared("--input", uris, "--output", tmp_path_factory.mktemp("one") / "out", "--module", TINY)
    refs = [ImageRef(uri, f"{uris}#{row}", uri) for row, uri in enumerate(uris.read_text().splitlines())]
    outcomes = Collect()
    with beam.Pipeline(runner=FnApiRunner()) as p:
        elements = p | beam.Create([refs], reshuffle=False) | beam.FlatMap(lambda some: some)
        _ = elements | Label(job.load, job.predict) | outcomes
    predictions = {one.ref.ref_id: one for one in outcomes.values if isinstance(one, Prediction)}
    failures = {one.ref_id for one in outcomes.values if isinstance(one, Failure)}
    assert len(outcomes.values) == len(predictions) + len(failures) == IMAGES
    return predictions, failures


@pytest.mark.parametrize("batch_size", [1, 7, 128])
def test_blocks_of_any_size_hold_the_rows_of_the_one_element_form(
    uris: Path, expected: tuple[dict[str, Prediction], set[str]], tmp_path: Path, batch_size: int
) -> None:
    predictions, failures = expected
    job = label(
        tmp_path / "out",
        "--input",
        uris,
        "--batch_size",
        batch_size,
        "--shard_rows",
        90,
        "--max_error_rate",
        0.6,
    )
    rows = {row["ref_id"]: row for row in job.rows}
    assert rows.keys() == predictions.keys()
    for ref_id, row in rows.items():
        one = predictions[ref_id]
        assert row["class_ids"] == list(one.class_ids)
        assert np.array_equal(np.array(row["scores"], np.float32), one.scores)
        assert np.array_equal(np.array(row["embedding"], np.float32), one.embedding)
        assert row["content_hash"] == one.info.content_hash
    assert {failure["ref_id"] for failure in job.failures} == failures
    assert job.manifest["metrics"]["beamlabel.RunInference"]["inference_request_batch_size"]["max"] == min(
        batch_size, IMAGES // 2
    )
