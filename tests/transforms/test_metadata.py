"""An element's other fields survive every outcome; retried and split bundles lose and double no element."""

import typing
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from beamlabel import LabelImages
from beamlabel.transforms.decoding.picture.options import refusal
from beamlabel.transforms.loading import load_images
from beamlabel.transforms.records import Reason
from support.collect import Collect
from support.http_site import reply, serving, silence
from support.images import flip, png
from support.jobs import TINY, photos

tf = pytest.importorskip("tensorflow")

from support.tf_modules import Holder, images_spec, save_functions  # noqa: E402

FAULT = b"a fault of ours"
MAX_BYTES = 100_000


class Photo(typing.NamedTuple):
    uri: typing.Optional[str]  # noqa: UP045 (Beam reads the annotations)
    customer: int


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """A module that answers NaN for images without red."""

    def function(images):
        red = tf.reduce_mean(images[..., 0], [1, 2])[:, None]
        logits = tf.concat([images[:, 0, 0, :], images[:, 1, 1, :]], 1)
        return {"logits": tf.where(red == 0, float("nan"), logits)}

    directory = tmp_path_factory.mktemp("module") / "nan"
    return save_functions(directory, Holder(), {"serving_default": images_spec()}, serving_default=function)


@pytest.fixture
def cases(tmp_path, monkeypatch):
    """A URI for each reason, and for None a valid image."""
    whole = photos(tmp_path, 1)[0]
    data = whole.read_bytes()
    contents = {
        Reason.EMPTY_FILE: b"",
        Reason.NOT_AN_IMAGE: b"<!DOCTYPE html>",
        Reason.TRUNCATED: data[: len(data) // 2],
        Reason.CORRUPT: flip(data, len(data) // 2),
        Reason.UNSUPPORTED_FORMAT: b'<svg xmlns="http://www.w3.org/2000/svg"/>\n',
        Reason.TOO_MANY_PIXELS: png(30000, 30000, 8, 2, b""),
        Reason.TOO_MANY_BYTES: bytes(MAX_BYTES + 1),
        Reason.INFERENCE_ERROR: (black := tmp_path / "black.bmp"),
        Reason.INTERNAL_ERROR: FAULT,
        # Real ones take seconds, see decoding/test_limits.py.
        Reason.DECODE_TIMEOUT: b"an image that takes long",
        Reason.DECODE_ERROR: b"an image that crashes its decoder",
    }
    from PIL import Image

    Image.new("RGB", (8, 8), (0, 9, 9)).save(black)
    uris: dict[Reason | None, str | None] = {None: str(whole), Reason.NULL_URI: None}
    for reason, content in contents.items():
        path = tmp_path / f"{reason.value}.png"
        path.write_bytes(content.read_bytes() if isinstance(content, Path) else content)
        uris[reason] = str(path)
    uris[Reason.NOT_FOUND] = str(tmp_path / "missing.png")
    uris[Reason.NOT_A_FILE] = str(tmp_path)
    uris[Reason.INVALID_URI] = " a.png"
    uris[Reason.UNSUPPORTED_SCHEME] = "ftp://images.example/a.png"
    decode = load_images.decode

    def faulty(encoded, options):
        if encoded == FAULT:
            raise KeyError("a fault")
        for reason in (Reason.DECODE_TIMEOUT, Reason.DECODE_ERROR):
            if encoded == contents[reason]:
                raise refusal(reason, "a child of the decoder ended")
        return decode(encoded, options)

    monkeypatch.setattr(load_images, "decode", faulty)
    with serving() as site:
        uris[Reason.FORBIDDEN] = site.on("/forbidden", reply(403))
        uris[Reason.FETCH_ERROR] = site.on("/broken", reply(400))
        uris[Reason.TIMEOUT] = site.on("/silent", silence)
        uris[Reason.NOT_ALLOWED] = f"{site.base}@127.0.0.1:1/a"
        yield uris


FORMS = {
    "dict": (lambda uri, n: {"uri": uri, "customer": n}, lambda row: (row["customer"], row["uri"])),
    "row": (lambda uri, n: Photo(uri, n), lambda row: (row.customer, row.uri)),
    "pair": (lambda uri, n: (n, uri), lambda pair: (pair[0], pair[1].uri)),
    "pair of dict": (lambda uri, n: (n, {"uri": uri}), lambda pair: (pair[0], pair[1]["uri"])),
}


def reason_of(row):
    value = row[1] if isinstance(row, tuple) and not hasattr(row, "_fields") else row
    return value["reason"] if isinstance(value, dict) else value.reason


@pytest.mark.parametrize("form", FORMS)
def test_metadata_survives_every_reason(module, cases, form):
    # `allow_http` refuses by scheme, so this needs a separate run.
    del cases[Reason.NOT_ALLOWED]
    # Only a table row can be `invalid_row`; the failure of a URI that is too long does not hold the URI.
    elsewhere = {Reason.NOT_ALLOWED, Reason.FIELD_TAKEN, Reason.INVALID_ROW, Reason.URI_TOO_LONG}
    # Only the job can end a worker whose batch hangs.
    elsewhere |= {Reason.SCHEME_NOT_ALLOWED, Reason.INFERENCE_TIMEOUT}
    assert {*cases, *elsewhere, None} == {*Reason, None}
    make, kept = FORMS[form]
    predictions, failures = Collect(), Collect()
    with beam.Pipeline(runner=FnApiRunner()) as p:
        labeled = (
            p
            | beam.Create([make(uri, n) for n, uri in enumerate(cases.values())])
            | LabelImages(  # one of everything
                module,
                scores="softmax",
                max_bytes=MAX_BYTES,
                allow_http=True,
                allow_private_hosts=True,
                fetch_deadline=1.0,
            )
        )
        _ = labeled.predictions | "Predictions" >> predictions
        _ = labeled.failures | "Failures" >> failures
    found = {kept(row): reason_of(row) for row in failures.values}
    expected = {(n, uri): reason.value for n, (reason, uri) in enumerate(cases.items()) if reason is not None}
    assert found == expected and len(failures.values) == len(expected)
    assert [kept(row) for row in predictions.values] == [(0, cases[None])]


@pytest.mark.parametrize("form", FORMS)
def test_metadata_survives_forbidden_characters(form):
    make, kept = FORMS[form]
    failures = Collect()
    with beam.Pipeline(runner=FnApiRunner()) as p:
        urls = p | beam.Create([make("https://images.example/a.png", 3)])
        _ = (urls | LabelImages(TINY)).failures | failures
    (row,) = failures.values
    assert kept(row) == (3, "https://images.example/a.png") and reason_of(row) == "not_allowed"


@pytest.mark.parametrize(
    ("runner", "options"),
    [
        (FnApiRunner(bundle_repeat=3), []),
        (FnApiRunner(), ["--direct_num_workers=3", "--direct_running_mode=multi_threading"]),
    ],
    ids=["each bundle four times", "many bundles"],
)
def test_bundles_that_are_tried_again_or_split(tmp_path, runner, options):
    paths = photos(tmp_path, 40)
    for path in paths[::7]:
        path.write_bytes(b"no image")
    with beam.Pipeline(runner=runner, options=PipelineOptions(options)) as p:
        images = p | beam.Create([(n, str(path)) for n, path in enumerate(paths)])
        labeled = images | LabelImages(TINY, batch_size=3, load_threads=2)
        counts = [
            part | f"Keys {n}" >> beam.Keys() | f"Count {n}" >> beam.combiners.Count.PerElement()
            for n, part in enumerate(labeled)
        ]
        for part, numbers in zip(
            counts, (set(range(40)) - set(range(0, 40, 7)), range(0, 40, 7)), strict=True
        ):
            assert_that(
                part,
                equal_to([(number, 1) for number in numbers]),
                label=f"{len(list(numbers))}",
            )
