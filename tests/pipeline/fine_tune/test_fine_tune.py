"""``beamlabel train --fine_tune`` as a whole, on a module without update ops."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.fine_tune import pixels
from beamlabel.pipeline.fine_tune import session as sessions
from beamlabel.pipeline.fine_tune.fine_tune import usable_rows
from beamlabel.pipeline.fine_tune.state import Workplace, directory_of
from beamlabel.pipeline.job.prepare_module import resolve
from beamlabel.pipeline.process.cancellation import cancellation
from beamlabel.pipeline.train.rows.split import TEST, TRAIN
from beamlabel.pipeline.truth.problem import Problem
from beamlabel.transforms.inference.probe import probe_batch
from beamlabel.transforms.module.load import inspect_module
from support.fine_tuning import OPTIONS, fine_tune, patterns
from support.jobs import label
from support.paths import ROOT
from support.training_rows import training_rows

tf = pytest.importorskip("tensorflow")

EPOCHS = ("--epochs", "12")


def record(output):
    return json.loads((output / "_TRAINING.json").read_text())


def numbers(output):
    """The findings of a training without its paths."""
    found = record(output)
    return {name: found[name] for name in ("accuracy", "history", "class_scores", "macro_f1", "calibration")}


@pytest.fixture(scope="module")
def tuned(labels, tmp_path_factory):
    """The module of an uninterrupted training, and its session."""
    caught = []

    class Session(sessions.Session):
        def run(self):
            caught.append(self)
            return super().run()

    output = tmp_path_factory.mktemp("models") / "tuned"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("beamlabel.pipeline.fine_tune.fine_tune.Session", Session)
        assert fine_tune(labels, output, *EPOCHS) == 0
    return output, caught[0]


def test_a_class_without_train_images_is_reported_and_not_trained():
    rows = training_rows(np.arange(60, dtype=np.int32) % 3)
    usable = (rows.targets != 1) | (rows.split != TRAIN)
    gone = Problem("images are not available: not_found; they are left out", int((~usable).sum()))
    with pytest.raises(UsageError, match=r"class 1.*not_found"):
        usable_rows(rows, pixels.Pixels(np.zeros(0), usable, (gone,)))
    untested = (rows.targets != 1) | (rows.split != TEST)
    places, found = usable_rows(rows, pixels.Pixels(np.zeros(0), untested, (gone,)))
    assert [one.examples for one in found.problems] == [(), ("class 1",)]
    assert len(found) == len(places) == untested.sum()


def test_it_learns_what_a_head_cannot_and_tells_of_the_broken_module(tuned):
    output, session = tuned
    found = record(output)
    told = found["facts"]["fine_tuning"]
    validation = found["accuracy"]["validation"]["value"]
    assert validation >= 0.75 and validation >= told["head_alone"]["validation"] + 0.08
    assert found["accuracy"]["test"]["value"] >= 0.6
    statistics = told["batch_statistics"]
    assert "0 of 26" in statistics["why"] and set(statistics["trials"]) == {"ours", "frozen"}
    best = max(
        statistics["trials"].items(),
        key=lambda one: (one[1]["validation_accuracy"], -one[1]["validation_loss"]),
    )[0]
    assert best == session._place.state.mode
    assert not directory_of(str(output)).exists()


def test_the_module_gives_the_trained_graphs_numbers(tuned):
    output, session = tuned
    images = probe_batch(32, 32)
    logits = np.asarray(session.model.keras(images, training=False))
    temperature = record(output)["facts"]["fine_tuning"]["temperature"]
    module = inspect_module(resolve(str(output)))
    got, features = (one.numpy() for one in module.function(images.astype(np.float32) / 255))
    expected = session._network.infer(tf.constant(images, tf.float32) / 255).numpy()
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
    np.testing.assert_allclose(
        got, logits / temperature, rtol=0, atol=1e-5 * max(1, np.abs(logits / temperature).max())
    )


def test_its_labels_are_those_of_the_training(tuned, tmp_path):
    output, _ = tuned
    images = patterns(tmp_path / "images", 240)
    job = label(tmp_path / "labels", "--input", images, module=output)
    assert job.code == 0
    right = {row["uri"].rsplit("/", 1)[1]: row["label"] == row["uri"].split("/")[-2] for row in job.rows}
    accuracy = record(output)["accuracy"]
    expected = sum(one["value"] * one["images"] for one in accuracy.values())
    assert sum(right.values()) == pytest.approx(expected)
    # LiteRT can run it.
    assert "litert" in json.dumps(job.manifest)


@pytest.mark.long
def test_a_killed_training_ends_as_an_unbroken_one(tuned, labels, tmp_path):
    output = tmp_path / "killed"
    # Another test's job may have set them in this process, and sums depend on the number of threads.
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    script = f"from support.fine_tuning import killed_after; killed_after(2, threads={threads})"
    argv = [sys.executable, "-c", script, str(labels), "--output", str(output), *OPTIONS, *EPOCHS]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(argv, env=env, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    directory = directory_of(str(output))
    assert not output.exists() and directory.exists()
    with pytest.raises(UsageError, match="resume"):
        fine_tune(labels, output, *EPOCHS)
    with pytest.raises(UsageError, match="dropout"):
        fine_tune(labels, output, *EPOCHS, "--if_exists", "resume", "--dropout", "0.1")
    # A damaged image in the cache.
    with (directory / pixels.PIXELS).open("r+b") as file:
        file.seek(5 * 32 * 32 * 3)
        file.write(bytes(1000))
    assert fine_tune(labels, output, *EPOCHS, "--if_exists", "resume") == 0
    assert numbers(output) == numbers(tuned[0])
    assert resolve(str(output)).fingerprint == resolve(str(tuned[0])).fingerprint


@pytest.mark.long
def test_an_interrupted_training_keeps_the_best_so_far(labels, tmp_path, monkeypatch):
    real = Workplace.save

    def save(self, **changes):
        real(self, **changes)
        if changes.get("history") and len(self.state.history) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Workplace, "save", save)
    output, before = tmp_path / "cancelled", inspect_module(resolve(_module(labels)))
    from beamlabel.pipeline.fine_tune.open_network import open_network

    start = open_network(before)
    with cancellation():
        assert fine_tune(labels, output, "--fine_tune_from", "Conv_1", "--augment", "default") == 0
    found = record(output)["facts"]["fine_tuning"]
    assert found["interrupted"] and found["epochs"]["done"] == 2
    assert found["augmentation"] and found["variables"]["trained"] == 3
    # Everything before the layer is unchanged.
    tuned = open_network(inspect_module(resolve(str(output))))
    one = dict(zip(start.names, start.values(), strict=True))
    other = dict(zip(tuned.names, tuned.values(), strict=True))
    changed = {name for name in other if not np.array_equal(one[name], other[name])}
    assert changed == {
        f"MobilenetV2/Conv_1/{name}" for name in ("weights", "BatchNorm/gamma", "BatchNorm/beta")
    }


def test_pixels_are_those_of_the_job(tuned, tmp_path):
    _, session = tuned
    rows = session._task.rows
    for place in (0, 17, len(rows) - 1):
        path = rows.table.column("location")[place].as_py()
        (got,) = session._task.images(np.array([place]))
        # 32 × 32 pixels, the module's input size, so no image is resized.
        np.testing.assert_array_equal(got, np.asarray(Image.open(path.removeprefix("file://"))))


def _module(labels):
    return json.loads((labels / "_MANIFEST.json").read_text())["options"]["module"]
