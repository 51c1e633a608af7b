"""Interactive Beam: results for every element kind are a table with a column for each field."""

import typing

import apache_beam as beam
import pandas as pd
import pytest
from apache_beam.runners.interactive import interactive_beam as ib
from apache_beam.runners.interactive import interactive_environment
from apache_beam.runners.interactive.interactive_runner import InteractiveRunner

from beamlabel import FailedImage, LabeledImage, LabelImages
from support.jobs import TINY, photos

NAMES = [f"class {number}" for number in range(11)]
COLUMNS = list(LabeledImage._fields)
FAILED = list(FailedImage._fields)


class Photo(typing.NamedTuple):
    uri: str
    customer: int


@pytest.fixture(autouse=True)
def environment():
    """Stops watching and recording at the end of the test."""
    yield
    interactive_environment.new_env()


@pytest.fixture
def paths(tmp_path):
    """Three files; the last is not an image."""
    made = [str(path) for path in photos(tmp_path / "photos", 3)]
    with open(made[2], "wb") as file:  # noqa: PTH123
        file.write(b"no image")
    return made


def collect(elements, **arguments):
    """Collects as in a notebook, whose variables are watched."""
    p = beam.Pipeline(InteractiveRunner())
    labeled = p | beam.Create(elements) | LabelImages(TINY, class_names=NAMES, **arguments)
    ib.watch({"p": p, "labeled": labeled})
    return ib.collect(labeled.predictions), ib.collect(labeled.failures)


def with_our_own(columns):
    return ["uri", "customer", *(name for name in columns if name != "uri")]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda uri, number: uri, lambda columns: columns),
        (lambda uri, number: {"uri": uri, "customer": number}, with_our_own),
        (lambda uri, number: beam.Row(uri=uri, customer=number), with_our_own),
        (Photo, with_our_own),
    ],
    ids=["uris", "dicts", "rows", "named tuples"],
)
def test_a_column_for_each_field(paths, make, named):
    labels, failures = collect([make(uri, number) for number, uri in enumerate(paths)])
    assert isinstance(labels, pd.DataFrame)
    assert list(labels.columns) == named(COLUMNS)
    assert list(failures.columns) == named(FAILED)
    labels = labels.set_index("uri").loc[paths[:2]].reset_index()
    assert list(labels["width"]) == [48, 48]
    assert [len(vector) for vector in labels["embedding"]] == [64, 64]
    best = [ids[0] for ids in labels["class_ids"]]
    assert list(labels["label"]) == [NAMES[number] for number in best]
    assert labels["score"].between(0, 1).all()
    assert list(failures["uri"]) == [paths[2]] and list(failures["reason"]) == ["not_an_image"]
    if "customer" in labels:
        assert list(labels["customer"]) == [0, 1] and list(failures["customer"]) == [2]


def test_the_values_of_pairs(paths):
    p = beam.Pipeline(InteractiveRunner())
    labeled = p | beam.Create(list(enumerate(paths))) | LabelImages(TINY, class_names=NAMES)
    values = labeled.predictions | beam.Values()
    ib.watch({"p": p, "values": values})
    table = ib.collect(values)
    assert list(table.columns) == COLUMNS and sorted(table["uri"]) == sorted(paths[:2])


def test_counts_of_labels(paths):
    labels, _ = collect([{"uri": uri, "customer": 7} for uri in paths], top_k=1, embeddings=False)
    counts = labels.groupby("label")["customer"].count()
    assert counts.sum() == 2 and set(counts.index) <= set(NAMES)
    assert "embedding" not in labels
