"""Earlier runs over this run's input, and those of their failures that this run would meet again."""

import dataclasses

import pytest

from beamlabel.pipeline.earlier.wanted import Wanted
from beamlabel.pipeline.job.settings import named_input
from beamlabel.pipeline.options.job_options import InputOptions
from beamlabel.transforms.rows.metadata_keys import PREPROCESSING_ID
from beamlabel.transforms.rows.schema import OutputSpec

VERSIONS = {"beamlabel": "1", "opencv-python-headless": "2", "pillow": "3", "simplejpeg": "4", "numpy": "5"}
WANTED = Wanted(
    OutputSpec(embedding_dim=8, preprocessing_id="p"), "/out",
    named_input(InputOptions(input=("/photos/", "gs://b/more/")), None),
    max_bytes=1000, max_pixels=100, versions=VERSIONS,
)  # fmt: skip
ALL = {
    "truncated", "corrupt", "not_an_image", "unsupported_format", "too_many_pixels", "too_many_bytes", "empty_file",
}  # fmt: skip


def manifest(**options):
    options = {"input": ["/photos/"], "base_dir": "/work", "max_bytes": 1000, "max_pixels": 100, **options}
    return {"options": options, "versions": VERSIONS, "metadata": {PREPROCESSING_ID: "p"}}


@pytest.mark.parametrize(
    ("options", "is_of_input"),
    [
        ({}, True),
        ({"input": ["gs://b/more/", "/photos/"]}, True),
        ({"input": ["/photos/", "/others/"]}, False),
        ({"input": ["/photos"]}, False),
        ({"input": []}, False),
        ({"input_format": "images"}, False),
        ({"uri_column": "url"}, False),
        ({"exclude": ["*.gif"]}, False),
        ({"keep_columns": []}, True),
        ({"limit": 3, "sample": 0.5}, True),
        ({"base_dir": "/elsewhere"}, True),
        ({"max_bytes": 5}, True),
    ],
)
def test_whose_images_are_looked_for(options, is_of_input):
    assert WANTED.is_of_input(manifest(**options)) is is_of_input


def test_relative_references_have_a_base():
    lists = dataclasses.replace(WANTED, named=dataclasses.replace(WANTED.named, base_dir="/work"))
    assert lists.is_of_input(manifest())
    assert not lists.is_of_input(manifest(base_dir="/elsewhere"))


def test_shards_without_a_manifest_are_of_no_input():
    assert not WANTED.is_of_input(None)
    assert not WANTED.is_of_input({"files": []})


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({}, ALL),
        ({"max_bytes": 999}, ALL),
        ({"max_bytes": 1001}, ALL - {"too_many_bytes"}),
        ({"max_pixels": 101}, ALL - {"too_many_pixels"}),
        ({"versions": {**VERSIONS, "pillow": "3.1"}}, set()),
        ({"versions": {**VERSIONS, "beamlabel": "1.1"}}, set()),
        ({"versions": {**VERSIONS, "numpy": "6"}}, ALL),
        ({"spec": OutputSpec(embedding_dim=8, preprocessing_id="q")}, set()),
    ],
)
def test_what_fails_again(change, reasons):
    assert dataclasses.replace(WANTED, **change).fails_again(manifest()) == reasons


def test_a_manifest_that_does_not_tell_hinders_nothing():
    assert WANTED.fails_again({"metadata": {PREPROCESSING_ID: "p"}}) == frozenset()
