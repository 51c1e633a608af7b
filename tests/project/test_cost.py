"""The cost of an image, counted instead of timed: a guard against unnoticed slowdowns.

The tests count model loads, imports of TensorFlow, copies of pixels, batch sizes, and shuffled bytes.
"""

import hashlib
import json
import os
import subprocess
import sys

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam import coders
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beamlabel.pipeline.job.preflight import check_inputs
from beamlabel.pipeline.options.parser import parse
from beamlabel.transforms.inference import engines, interpreter_pool, predict
from beamlabel.transforms.inputs.packed_refs import CARRIED_BYTES
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.loading import load_images
from beamlabel.transforms.records import Failure, LoadedImage
from beamlabel.transforms.units.plan_units import PlanUnits
from support.jobs import TINY, label, photos, uri_list

IMAGES = 150
BATCH = 16


@pytest.fixture(scope="module")
def uris(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cost")
    return uri_list(directory / "list.txt", photos(directory / "photos", IMAGES))


@pytest.fixture(scope="module", autouse=True)
def warm_cache(tmp_path_factory, uris):
    label(tmp_path_factory.mktemp("warm") / "out", "--input", uris, "--limit", 1)


@pytest.mark.parametrize(
    "runner_options", [(), ("--direct_running_mode", "multi_threading", "--direct_num_workers", "2")]
)
def test_a_process_opens_the_model_once(tmp_path, uris, runner_options):
    before = engines.loads
    job = label(tmp_path / "out", "--input", uris, "--batch_size", BATCH, *runner_options)
    assert job.manifest["rows"]["predicted"] == IMAGES
    assert engines.loads == before + 1


def test_a_warm_run_imports_neither_tensorflow_nor_what_only_connectors_need(tmp_path, uris):
    code = (
        "import json, sys; import beamlabel.pipeline.run as command\n"
        "from beamlabel.pipeline.options.parser import parse\n"
        "def tell(code, **_):\n"
        "    print(json.dumps([code, sorted({n.partition('.')[0] for n in sys.modules} | set(sys.modules))]))\n"
        "command.exit_process = tell\n"
        "command.main(*parse(sys.argv[1:]))"
    )
    command = ["--input", str(uris), "--module", TINY, "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True, env=os.environ
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    heavy = {
        "tensorflow",
        "tensorflow_hub",
        "keras",
        "tfx_bsl",
        "google.cloud.bigquery",
        "apitools",
        "matplotlib",
    }
    assert not heavy & set(modules)
    assert "apache_beam" in modules and "ai_edge_litert" in modules


@pytest.fixture
def watched(monkeypatch):
    """The decoded pixel arrays and those that reached the engine's input, by identity."""
    decoded, copied, batches = [], [], []
    decode, fill, run_inference = (
        load_images.decode,
        interpreter_pool.fill,
        predict.HubModelHandler.run_inference,
    )

    def watch_decode(*arguments):
        image = decode(*arguments)
        decoded.append(image.pixels)
        return image

    def watch_fill(target, images):
        assert isinstance(images, list)
        copied.extend(images)
        fill(target, images)

    def watch_batch(self, batch, *arguments):
        batches.append(list(batch))
        return run_inference(self, batch, *arguments)

    monkeypatch.setattr(load_images, "decode", watch_decode)
    # The array from which an engine copied.
    monkeypatch.setattr("beamlabel.transforms.inference.litert_engine.fill", watch_fill)
    monkeypatch.setattr(predict.HubModelHandler, "run_inference", watch_batch)
    return decoded, copied, batches


def test_pixels_are_copied_once_from_the_decoder_to_the_engine(tmp_path, uris, watched):
    decoded, copied, _ = watched
    label(tmp_path / "out", "--input", uris, "--batch_size", BATCH)
    assert len(decoded) == len(copied) == IMAGES
    # The same objects: no array was copied, stacked or pickled on the way.
    assert {id(pixels) for pixels in decoded} == {id(pixels) for pixels in copied}


def test_batches_have_one_size(tmp_path, uris, watched):
    *_, batches = watched
    label(tmp_path / "out", "--input", uris, "--batch_size", BATCH, "--shard_rows", 50)
    images = [sum(isinstance(element, LoadedImage) for element in batch) for batch in batches]
    sizes = [size for size in images if size]
    assert sizes[:-1] == [BATCH] * (len(sizes) - 1) and sum(sizes) == IMAGES
    # Unit ends travel in separate blocks and are the only elements here that are not images.
    others = [len(batch) for batch, size in zip(batches, images, strict=True) if not size]
    assert sum(others) == 3 and sum(map(len, batches)) == IMAGES + 3
    assert not any(isinstance(element, Failure) for batch in batches for element in batch)


def shuffled_bytes(staging_dir, *arguments):
    """The bytes of all work units as the reshuffle encodes them."""
    options, _ = parse([*map(str, arguments), "--module", TINY, "--output", "unused"])
    inputs = check_inputs(options.inputs, options.output)
    source = SourceOptions(base_dir="/data", columns=inputs.columns, shard_rows=options.output.shard_rows)
    sizes = []
    pipeline = beam.Pipeline(runner=FnApiRunner())
    units = pipeline | PlanUnits(inputs.files, source, str(staging_dir))
    SIZES.clear()
    units | beam.Map(note_size)
    pipeline.run().wait_until_finish()
    sizes.extend(SIZES)
    return sizes


SIZES: list[int] = []


def note_size(unit):
    """Not nested, since a function pickled by value gets its own list."""
    SIZES.append(len(coders.FastPrimitivesCoder().encode(unit)))


def test_a_reference_costs_the_shuffle_a_few_bytes(tmp_path):
    uris = uri_list(tmp_path / "list.txt", (f"gs://photos/2026/11/{n:08d}.jpg" for n in range(20_000)))
    sizes = shuffled_bytes(tmp_path, "--input", uris)
    # A bare URI as a separate element costs about 600 bytes in Beam here.
    assert sum(sizes) < 10 * 20_000
    assert max(sizes) < 100_000


def test_what_the_shuffle_holds_does_not_grow_with_the_references(tmp_path):
    names = (hashlib.sha256(b"%d" % n).hexdigest() for n in range(100_000))
    uris = uri_list(tmp_path / "list.txt", (f"gs://photos/{name}.jpg" for name in names))
    sizes = shuffled_bytes(tmp_path / "staging", "--input", uris)
    # Packed, each of these names takes at least its 32 bytes.
    assert len(sizes) < 300
    assert sum(sizes) < CARRIED_BYTES + 1000 * len(sizes) < 100_000 * 32 / 4
    staged = sum(path.stat().st_size for path in (tmp_path / "staging" / "references").iterdir())
    assert staged > 100_000 * 32 - CARRIED_BYTES


def test_image_bytes_never_cross_the_shuffle(tmp_path):
    image = np.random.default_rng(0).bytes(20_000)
    table = pa.table({"uri": [f"{n}.jpg" for n in range(500)], "image": pa.array([image] * 500, pa.binary())})
    pq.write_table(table, tmp_path / "images.parquet", row_group_size=100)
    sizes = shuffled_bytes(tmp_path, "--input", tmp_path / "images.parquet", "--image_column", "image")
    assert sum(sizes) < 5_000
