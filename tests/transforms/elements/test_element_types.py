"""Result types follow from element types, so that Beam checks pipelines at construction."""

import dataclasses
import typing
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.io.fileio import ReadableFile
from apache_beam.typehints import typehints
from apache_beam.typehints.row_type import RowTypeConstraint

from beamlabel import FailedImage, LabeledImage
from beamlabel.transforms.elements.element_types import added_fields, result_types
from beamlabel.transforms.elements.references import ElementOptions
from beamlabel.transforms.elements.result_types import FAILURE_FIELDS
from beamlabel.transforms.rows.schema import OutputSpec

OPTIONS = ElementOptions()
SPEC = OutputSpec(has_labels=True, top_k=5, num_classes=11, embedding_dim=64)
FEATURES = OutputSpec(embedding_dim=64)


class Photo(typing.NamedTuple):
    uri: str
    note: typing.Optional[str]  # noqa: UP045 (Beam reads the annotations)


@dataclasses.dataclass
class Order:
    uri: str
    note: str


@pytest.mark.parametrize(
    "kind",
    [str, bytes, Path, ReadableFile, typing.Optional[str], type(None), typing.Union[str, bytes]],  # noqa: UP045
    ids=str,
)
def test_bare_elements(kind):
    assert result_types(kind, OPTIONS, SPEC) == (LabeledImage, FailedImage)
    pair = result_types(typehints.Tuple[int, kind], OPTIONS, SPEC)
    assert pair == (typehints.Tuple[int, LabeledImage], typehints.Tuple[int, FailedImage])


@pytest.mark.parametrize("kind", [typing.Any, object, tuple, beam.Row, typing.Union[str, Photo]], ids=str)
def test_what_is_not_known_stays_open(kind):
    assert result_types(kind, OPTIONS, SPEC) == (typehints.Any, typehints.Any)


def test_dicts():
    assert result_types(dict[str, int], OPTIONS, SPEC).prediction == typehints.Dict[str, typehints.Any]
    for kind in (dict, dict[typing.Union[str, int], int]):
        assert result_types(kind, OPTIONS, SPEC).failure == typehints.Dict[typehints.Any, typehints.Any]


@pytest.mark.parametrize("kind", [Photo, Order, RowTypeConstraint.from_fields([("uri", str), ("note", str)])])
def test_rows(kind):
    for spec in (SPEC, FEATURES):
        prediction, failure = result_types(kind, ElementOptions(prefix="our_"), spec)
        names = [name for name, _ in prediction._fields]
        assert names == ["uri", "note", *("our_" + name for name in added_fields(spec))]
        assert [name for name, _ in failure._fields] == ["uri", "note", *("our_" + n for n in FAILURE_FIELDS)]
    assert ("our_label" in names) == ("our_score" in names) is False


@pytest.mark.parametrize("kind", [int, float, list[str], tuple[str, str, str], set[str]], ids=str)
def test_types_that_hold_no_image(kind):
    with pytest.raises(TypeError, match="hold no image"):
        result_types(kind, OPTIONS, SPEC)
    with pytest.raises(TypeError, match="hold no image"):
        result_types(typehints.Tuple[str, kind], OPTIONS, SPEC)
