"""Images for which a real module hangs in native code: they fail, all others get rows, none is lost."""

import pytest

from support.hanging_module import HANGING_PHOTO, save_hanging_module
from support.jobs import FinishedJob, command, label, photos, uri_list

COUNT = 12


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """A TF2 module that hangs for images of one color."""
    return save_hanging_module(tmp_path_factory.mktemp("hanging"))


@pytest.fixture(scope="module")
def uris(tmp_path_factory):
    directory = tmp_path_factory.mktemp("images")
    paths = photos(directory, COUNT)
    for number in (3, 8):
        paths[number].write_bytes(HANGING_PHOTO)
    return uri_list(directory / "list.txt", paths)


@pytest.fixture(scope="module")
def expected(module, uris, tmp_path_factory):
    """The rows of the images for which the module does not hang."""
    good = [line for number, line in enumerate(uris.read_text().splitlines()) if number not in (3, 8)]
    directory = tmp_path_factory.mktemp("expected")
    job = label(
        directory / "labels",
        "--input",
        uri_list(directory / "good.txt", good),
        "--scores",
        "none",
        module=module,
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


def test_a_hanging_launcher_ends_and_the_next_one_continues(module, uris, expected, tmp_path):
    arguments = ["--input", uris, "--output", tmp_path / "labels", "--module", module, "--scores", "none",
                 "--worker_processes", 1, "--inference_deadline", "4s", "--if_exists", "resume"]  # fmt: skip
    codes = []
    while not codes or codes[-1] == 3:
        codes.append(command(*arguments).returncode)
        assert len(codes) < 9
    # Once in the batch, and once alone each. The second image is already a suspect when it hangs alone.
    assert codes == [3, 3, 3, 0]
    check(FinishedJob(0, tmp_path / "labels"), expected, uris)
