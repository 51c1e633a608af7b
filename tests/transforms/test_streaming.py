"""Unbounded sources: windows and timestamps are kept, and no element exceeds the batch wait."""

import time

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.testing.test_stream import TestStream
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from beamlabel import LabelImages
from beamlabel.pipeline.runners.prism import SteadyPrismRunner
from beamlabel.transforms.inference.predict import HubModelHandler
from support import needs
from support.collect import Collect
from support.jobs import TINY, photos
from support.runner_jobs import PRISM

IMAGES = 6


@pytest.fixture(params=["in memory", "prism"])
def runner(request):
    """A runner that supports ``TestStream``, and its options."""
    if request.param == "in memory":
        return BundleBasedDirectRunner(), ["--streaming"]
    if not PRISM.exists():
        needs.lacking("no Prism; tools/setup_prism.sh builds it if Go is installed")
    return SteadyPrismRunner(), ["--streaming", "--prism_location", str(PRISM)]


@pytest.fixture
def batches(monkeypatch):
    """The number of images in each call of the module."""
    sizes = []
    run_inference = HubModelHandler.run_inference

    def watched(self, batch, *arguments):
        sizes.append(len(batch))
        return run_inference(self, batch, *arguments)

    monkeypatch.setattr(HubModelHandler, "run_inference", watched)
    return sizes


class See(beam.DoFn):
    def process(self, pair, window=beam.DoFn.WindowParam, timestamp=beam.DoFn.TimestampParam):
        yield pair[0], int(timestamp), int(window.start)


def label(runner, stream, windows, **arguments):
    """Runs the pipeline; returns number, timestamp and window of predictions and of failures."""
    runner, options = runner
    predictions, failures = Collect(), Collect()
    with beam.Pipeline(runner=runner, options=PipelineOptions(options)) as p:
        images = p | stream
        if windows:
            images |= beam.WindowInto(windows)
        labeled = images | LabelImages(TINY, **arguments)
        _ = labeled.predictions | "See predictions" >> beam.ParDo(See()) | "Predictions" >> predictions
        _ = labeled.failures | "See failures" >> beam.ParDo(See()) | "Failures" >> failures
    return sorted(predictions.values), sorted(failures.values)


@pytest.mark.parametrize("wait", [None, 2.5])
def test_windows_and_timestamps_of_a_stream_are_kept(runner, batches, tmp_path, wait):
    paths = photos(tmp_path, IMAGES)
    paths[2].write_bytes(b"no image")
    stream = TestStream().advance_watermark_to(0)
    for number, path in enumerate(paths):
        stream.add_elements([TimestampedValue((number, str(path)), 10 * number + 1)])
        stream.advance_processing_time(1)
    stream.advance_watermark_to(35).advance_watermark_to_infinity()
    predictions, failures = label(runner, stream, FixedWindows(20), max_batch_duration_secs=wait)
    expected = [(number, 10 * number + 1, 20 * (10 * number // 20)) for number in range(IMAGES)]
    assert predictions == [each for each in expected if each[0] != 2]
    assert failures == [expected[2]]


def test_a_batch_waits_no_longer_than_it_may(batches, tmp_path):
    """Two elements come, time passes, then a third comes: the first two wait for each other but not for it."""
    in_memory = BundleBasedDirectRunner(), ["--streaming"]
    paths = photos(tmp_path, 3)

    def stream():
        # The stream's clock begins at 0, but Beam's batches wait by the clock of this machine.
        made = TestStream().advance_watermark_to(0).advance_processing_time(int(time.time()))
        for number, path in enumerate(paths[:2]):
            made.add_elements([TimestampedValue((number, str(path)), 1)]).advance_processing_time(1)
        made.advance_processing_time(100)
        made.add_elements([TimestampedValue((2, str(paths[2])), 2)])
        return made.advance_watermark_to_infinity()

    assert len(label(in_memory, stream(), FixedWindows(1000), max_batch_duration_secs=10)[0]) == 3
    assert batches == [2, 1]
    batches.clear()
    assert len(label(in_memory, stream(), FixedWindows(1000))[0]) == 3
    assert batches == [1, 1, 1]
    batches.clear()
    assert len(label(in_memory, stream(), FixedWindows(1000), max_batch_duration_secs=1000)[0]) == 3
    assert batches == [3]
