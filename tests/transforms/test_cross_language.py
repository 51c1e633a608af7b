"""``LabelImages`` as other languages call it: the payload, and a whole pipeline in Java."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pytest
from apache_beam import coders
from apache_beam.typehints.schemas import named_fields_to_schema

from beamlabel import LabelImages
from beamlabel.transforms.cross_language import URN, Payload, arguments
from support.java_pipelines import expansion_service, prism_server, require_java, run_java
from support.jobs import TINY, label, photos, uri_list
from support.paths import ROOT
from support.worker_pools import worker_pool


def payload(types: dict, **values: object) -> Payload:
    schema = named_fields_to_schema(types)
    row = coders.RowCoder(schema).encode(beam.Row(**values))
    return Payload(schema=schema, payload=row)


def test_a_null_is_as_no_argument():
    types = {"module": str, "top_k": int | None, "class_names": list[str], "crop": float}
    given = payload(types, module="m", top_k=None, class_names=["cat", "dog"], crop=0.5)
    assert arguments(given) == {"module": "m", "class_names": ("cat", "dog"), "crop": 0.5}


@pytest.mark.parametrize(
    ("name", "kind", "value", "taken"),
    [
        ("crop", int, 1, 1.0),
        ("fetch_deadline", np.float32, 2.5, 2.5),
        ("top_k", np.int32, 3, 3),
        ("image_size", list[int], [32, 48], (32, 48)),
        ("input_range", list[int], [0, 1], (0.0, 1.0)),
        ("class_names", list[str], ["cat", "dog"], ("cat", "dog")),
        ("class_names", str, "none", "none"),
        ("base_dir", str, "gs://bucket", "gs://bucket"),
        ("embeddings", bool, False, False),
        ("http_headers", Mapping[str, str], {"X-Key": "k"}, {"X-Key": "k"}),
        ("http_per_host", np.int32, 4, 4),
        ("billing_project", str, "my-project-1", "my-project-1"),
    ],
)
def test_a_value_gets_the_type_of_its_argument(name, kind, value, taken):
    found = arguments(payload({"module": str, name: kind}, **{"module": "m", name: value}))[name]
    assert found == taken
    assert type(found) is type(taken)


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("embeddings", str, "false"),
        ("embeddings", int, 0),
        ("top_k", float, 2.0),
        ("top_k", bool, True),
        ("batch_size", str, "many"),
        ("image_size", list[int], [32]),
        ("image_size", list[float], [32.0, 32.0]),
        ("class_names", list[int], [1, 2]),
        ("base_dir", int, 3),
        ("fetch_deadline", bool, True),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(name, kind, value):
    given = payload({"module": str, name: kind}, **{"module": "m", name: value})
    with pytest.raises(ValueError, match=name):
        arguments(given)


@pytest.mark.parametrize("name", ["topk", "self", "class", "_private"])
def test_an_unknown_argument_is_refused_by_name(name):
    types = {"module": str, name: int}
    schema = named_fields_to_schema(types)
    given = Payload(schema=schema, payload=b"")
    with pytest.raises(ValueError, match=f"{URN}.*'{name}'"):
        arguments(given)


def test_the_module_has_to_be_named():
    with pytest.raises(ValueError, match="'module'"):
        arguments(Payload())


class Photo(NamedTuple):
    uri: str
    note: str | None
    tags: list[str | None]


@pytest.mark.parametrize(
    "elements", [["a.jpg"], [Photo("a.jpg", None, [])], [beam.Row(uri="a.jpg", customer=7)]]
)
def test_every_language_can_read_the_results(elements):
    labeled = beam.Pipeline() | beam.Create(elements) | LabelImages(TINY)
    for results in labeled:
        schema = coders.registry.get_coder(results.element_type).schema
        assert {"uri", "image_id", "source_version"} <= {field.name for field in schema.fields}
        # Beam pickles values without a portable type.
        assert "pythonsdk" not in str(schema)


@pytest.fixture(scope="module")
def prism(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    require_java()
    with prism_server(tmp_path_factory.mktemp("prism")) as address:
        yield address


@pytest.fixture(scope="module")
def uris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of three files, the second of which is not an image."""
    paths = photos(tmp_path_factory.mktemp("photos"), 3)
    paths[1].write_bytes(b"no image")
    return uri_list(paths[0].parent / "list.txt", paths)


def assert_same(rows: list[dict], expected: list[dict]) -> None:
    """Checks that rows of Java and of the command are equal to the last bit in their common columns."""
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        common = row.keys() & other.keys()
        assert {"uri", "class_ids", "scores", "embedding", "image_id"} <= common
        for name in common:
            got, wanted = row[name], other[name]
            if name in ("score", "scores", "embedding"):
                assert np.array_equal(np.float32(got), np.float32(wanted)), name
            else:
                assert got == wanted, name


def test_java_labels_a_list_of_uris(prism, uris, tmp_path):
    staging = tmp_path / "staging"
    names = [f"class {number}" for number in range(11)]
    (tmp_path / "names.txt").write_text("\n".join(names))
    here = label(
        tmp_path / "here",
        "--input",
        uris,
        "--top_k",
        3,
        "--labels",
        tmp_path / "names.txt",
        "--max_error_rate",
        1,
        "--crop",
        1,
    )
    with (
        worker_pool(ROOT, tmp_path) as pool,
        expansion_service(
            tmp_path,
            "--environment_type=EXTERNAL",
            f"--environment_config={pool}",
            f"--temp_location={staging}",
        ) as service,
    ):
        arguments = {"module": TINY, "top_k": 3, "class_names": names, "crop": 1}
        job = run_java(tmp_path / "java", uris, service=service, prism=prism, **arguments)
    assert job.code == 0, job.log
    assert_same(job.predictions, here.rows)
    assert [row["label"] for row in job.predictions] == [row["label"] for row in here.rows]
    (failure,), (expected,) = job.failures, here.failures
    assert (failure["stage"], failure["reason"], failure["detail"]) == (
        expected["stage"], expected["reason"], expected["detail"],
    )  # fmt: skip
    assert failure["reason"] == "not_an_image"
    # The workers need no access to the directory in which the service compiled the module.
    assert len(list(staging.rglob("*.beamlabel"))) == 1


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The expansion service that is also the worker."""
    require_java()
    with expansion_service(tmp_path_factory.mktemp("service"), "--serve_loopback_worker") as address:
        yield address


@pytest.mark.long
def test_java_rows_keep_their_fields(prism, service, uris, tmp_path):
    here = label(tmp_path / "here", "--input", uris, "--max_error_rate", 1)
    job = run_java(tmp_path / "java", uris, "--customers=true", service=service, prism=prism, module=TINY)
    assert job.code == 0, job.log
    assert [row["customer"] for row in job.predictions] == [0, 2]
    assert_same(job.predictions, here.rows)
    assert [(row["customer"], row["reason"]) for row in job.failures] == [(1, "not_an_image")]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"topk": 3}, "'topk'"), ({"top_k": 12}, "top_k"), ({"batch_size": "many"}, "batch_size")],
)
def test_java_gets_the_error_of_a_wrong_argument(wrong, named, prism, service, uris, tmp_path):
    job = run_java(tmp_path / "java", uris, service=service, prism=prism, **{"module": TINY, **wrong})
    assert job.code != 0
    (line,) = [line for line in job.log.splitlines() if "expansion service error" in line]
    assert named in line
    assert "Traceback" not in job.log
    assert not job.output.exists()


def test_the_page_shows_the_program():
    page = (ROOT / "docs" / "pipelines.md").read_text()
    program = (ROOT / "tests/support/java/src/main/java/LabelFromJava.java").read_text()
    blocks = re.findall(r"^```java\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert blocks
    assert [block for block in blocks if block not in program] == []
