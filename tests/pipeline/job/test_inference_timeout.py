"""Images at which a real module hangs in native code: they fail, all others get their rows, nothing is lost."""

import numpy as np
import pytest
from PIL import Image

from support.jobs import FinishedJob, command, label, photos, uri_list

# The colour that it hangs at, and how many images there are.
COLOUR, COUNT = (51, 230, 26), 12
KERNEL = np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """A TF2 module that does not end for images of one colour."""
    import tensorflow as tf

    class Hanging(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, "images")])
        def serve(self, images):
            mean = tf.reduce_mean(images, [1, 2])
            far = tf.reduce_max(tf.abs(mean - tf.constant(COLOUR, tf.float32) / 255), 1)
            hangs = tf.cast(tf.reduce_min(far) < 0.01, tf.float32)
            _, mean = tf.while_loop(lambda x, _: x > 0.5, lambda x, y: (x * 1.0, y + 0.0), (hangs, mean))
            return {"logits": (mean - 0.5) @ tf.constant(KERNEL)}

    model = Hanging()
    folder = tmp_path_factory.mktemp("hanging")
    tf.saved_model.save(model, str(folder), signatures=model.serve)
    return folder


@pytest.fixture(scope="module")
def uris(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = photos(folder, COUNT)
    for number in (3, 8):
        Image.fromarray(np.full((8, 8, 3), COLOUR, np.uint8)).save(paths[number])
    return uri_list(folder / "list.txt", paths)


@pytest.fixture(scope="module")
def expected(module, uris, tmp_path_factory):
    """The rows of the images at which it does not hang."""
    good = [line for number, line in enumerate(uris.read_text().splitlines()) if number not in (3, 8)]
    folder = tmp_path_factory.mktemp("expected")
    job = label(
        folder / "labels", "--input", uri_list(folder / "good.txt", good), "--scores", "none", module=module
    )
    assert job.code == 0
    return {row["uri"]: row["scores"] for row in job.rows}


def check(job: FinishedJob, expected: dict, uris) -> None:
    lines = uris.read_text().splitlines()
    assert {row["uri"]: row["scores"] for row in job.rows} == expected
    assert [failure["uri"] for failure in job.failures] == [lines[3], lines[8]]
    assert {failure["reason"] for failure in job.failures} == {"inference_timeout"}
    assert {failure["stage"] for failure in job.failures} == {"inference"}
    rows = job.manifest["rows"]
    assert (rows["input"], rows["predicted"], rows["failed"]) == (COUNT, COUNT - 2, 2)


def test_worker_processes_that_hang_are_replaced(module, uris, expected, tmp_path, capfd):
    arguments = ["--input", uris, "--scores", "none", "--worker_processes", 2, "--inference_deadline", "4s"]
    job = label(tmp_path / "labels", *arguments, module=module)
    assert job.code == 0
    check(job, expected, uris)


def test_a_launcher_that_hangs_ends_and_the_next_one_goes_on(module, uris, expected, tmp_path):
    arguments = ["--input", uris, "--output", tmp_path / "labels", "--module", module, "--scores", "none",
                 "--worker_processes", 1, "--inference_deadline", "4s", "--if_exists", "resume"]  # fmt: skip
    codes = []
    while not codes or codes[-1] == 3:
        codes.append(command(*arguments).returncode)
        assert len(codes) < 9
    # Once in the batch, and once alone each; the second image is a suspect already when it hangs alone.
    assert codes == [3, 3, 3, 0]
    check(FinishedJob(0, tmp_path / "labels"), expected, uris)
