"""The command in a separate process, as a user runs it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from beamlabel.pipeline.options.command_table import COMMANDS
from beamlabel.pipeline.options.parser import parse, underscored
from support.jobs import TINY, photos, uri_list
from support.servers import Reply


def command(*arguments, **options):
    return subprocess.run(
        [sys.executable, *options.pop("python", ()), "-m", "beamlabel", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, **options,
    )  # fmt: skip


@pytest.fixture
def good(tmp_path):
    """Arguments of a job that would run."""
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 2))
    return {"--input": uris, "--output": tmp_path / "out", "--module": TINY}


def flat(arguments):
    return [text for pair in arguments.items() for text in pair]


def test_help_and_version():
    shown = command("--help")
    assert shown.returncode == 0
    for option in ("--input", "--keep_columns", "--input_range", "--max_error_rate", "Exit codes"):
        assert option in shown.stdout
    assert command("--version").stdout.startswith("beamlabel 0.")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["--limit", "0"],
        ["--input", "/no/such/file", "--output", "o", "--module", "m"],
    ],
)
def test_help_version_and_usage_errors_are_answered_before_beam_is_imported(arguments):
    finished = command(*arguments, python=["-X", "importtime"])
    assert finished.returncode in (0, 2)
    imported = {
        line.rpartition("|")[2].strip() for line in finished.stderr.splitlines() if "import time" in line
    }
    assert "argparse" in imported
    assert not imported & {"apache_beam", "tensorflow", "google.cloud.storage"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--module": None}, "the following arguments are required: --module"),
        ({"--limit": "0"}, "argument --limit: '0' is not a whole number of at least 1"),
        ({"--sample": "1.5"}, "argument --sample: '1.5' is not a number"),
        ({"--crop": "0"}, "argument --crop: '0' is not a number"),
        ({"--max_bytes": "many"}, "argument --max_bytes: 'many' is not a size"),
        ({"--image_size": "12y3"}, "argument --image_size: '12y3' is not a size"),
        ({"--input_range": "0,2"}, "argument --input_range: '0,2' is not one of"),
        ({"--inputs": "x"}, "--inputs: no such option; did you mean --input?"),
        ({"--input": None, "--inp": "x"}, "--inp: no such option; did you mean --input?"),
        ({"--module": None, "--mod": "x"}, "--mod: no such option; did you mean --module?"),
        ({"--input": "/no/such/*.txt"}, "--input '/no/such/*.txt' matches no file"),
        ({"--base_dirr": "x"}, "did you mean --base_dir?"),
        ({"--frobnicate": "x"}, "--frobnicate is not an option of beamlabel or Beam"),
        ({"--base-dirr": "x"}, "did you mean --base_dir?"),
        (
            {"--direct-num-workerz": "2"},
            "--direct_num_workerz is not an option of beamlabel or Beam; did you mean",
        ),
        (
            {"--direct-running-mode": "threads"},
            "error: argument --direct_running_mode: invalid choice: 'threads'",
        ),
        ({"--uri_column": "uri"}, "--uri_column uri"),
        ({"--tfrecord_compression": "gzip"}, "needs --output_format tfrecord"),
        ({"--input": ""}, "--input is empty"),
        ({"-limit": "3"}, "'-limit' belongs to no option"),
        ({"--limit": "1__0"}, "argument --limit: '1__0' is not a whole number"),
        ({"--top_k": "12"}, "--top_k 12: the module has 11 classes"),
        ({"--image_size": "64"}, "64"),
        ({"--module": "/no/such/module"}, "--module: module /no/such/module"),
        ({"--logits_output": "nothing"}, "image_classification"),
        ({"--labels": "/no/such/names"}, "/no/such/names"),
    ],
)
def test_a_mistake_ends_with_2_and_names_the_option_and_the_value(good, change, message):
    arguments = {name: value for name, value in {**good, **change}.items() if value is not None}
    finished = command(*flat(arguments))
    assert finished.returncode == 2, finished.stderr
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr and "usage:" not in finished.stderr
    assert not good["--output"].exists()


def test_labels_that_do_not_match_the_classes_in_number_are_refused(good, tmp_path):
    names = uri_list(tmp_path / "names.txt", [f"class {i}" for i in range(10)])
    finished = command(*flat(good), "--labels", names)
    assert finished.returncode == 2
    assert "10" in finished.stderr and "11" in finished.stderr


@pytest.mark.parametrize("words", [["--labels=airflow-version=v3-3-2"], ["--labels", "team=vision"]])
def test_a_label_of_a_dataflow_job_is_the_runners(good, words):
    """Beam has an option of the same name, and Airflow's operator always sets it."""
    options, rest = parse([*map(str, flat(good)), *words, "--labels", "./a=b"])
    assert options.module.labels == "./a=b"
    label = words[-1].removeprefix("--labels=")
    assert rest == [f"--label={label}"]
    from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

    assert PipelineOptions(rest).view_as(GoogleCloudOptions).labels == [label]
    assert command(*flat(good), *words).returncode == 0


def test_an_output_that_cannot_be_written_is_a_usage_error(good, tmp_path):
    (tmp_path / "file").write_text("no directory")
    finished = command(*flat({**good, "--output": tmp_path / "file" / "out"}))
    assert finished.returncode == 2
    assert f"--output '{tmp_path}/file/out'" in finished.stderr


def test_a_pipe_as_input_is_refused(good, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    # No process writes to it, so opening it would block forever.
    finished = command(*flat({**good, "--input": tmp_path / "pipe"}))
    assert finished.returncode == 2
    assert "a pipe, not a file" in finished.stderr


def test_an_image_as_input_is_labeled_and_is_no_list(good, tmp_path):
    photo = {**good, "--input": tmp_path / "photos" / "photo 000.png"}
    finished = command(*flat(photo))
    assert finished.returncode == 0, finished.stderr
    assert "1 input = 1 predicted + 0 failed + 0 skipped" in finished.stderr
    finished = command(*flat({**photo, "--output": tmp_path / "other"}), "--input_format", "text")
    assert finished.returncode == 2
    assert "is an image, not text" in finished.stderr


def test_images_cannot_be_written_where_they_are_looked_for(good, tmp_path):
    changed = {**good, "--input": f"{tmp_path}/", "--input_format": "images"}
    finished = command(*flat(changed))
    assert finished.returncode == 2
    assert "is among the files that --input" in finished.stderr


def test_commas_are_not_split_and_input_is_repeatable(good, tmp_path):
    (other,) = photos(tmp_path / "a,b", 1)
    comma = uri_list(tmp_path / "a,b.txt", [other])
    finished = command(*flat(good), "--input", comma)
    assert finished.returncode == 0, finished.stderr
    assert "3 input = 3 predicted + 0 failed + 0 skipped" in finished.stderr


def test_options_for_the_runner_reach_it(good):
    finished = command(*flat(good), "--direct_num_workers", "2", "--direct_running_mode", "multi_threading")
    assert finished.returncode == 0, finished.stderr
    assert "2 predicted" in finished.stderr


def test_dashes_in_names_are_as_good_as_underscores(good):
    words = {**good, "--batch-size": 2}
    options, rest = parse(
        [*map(str, flat(words)), "--direct-num-workers=4", "--direct-running-mode", "in-memory"]
    )
    assert options.inference.batch_size == 2
    assert rest == ["--direct_num_workers=4", "--direct_running_mode", "in-memory"]
    assert underscored(["--a-b=c-d", "x-y", "--", "--e-f"]) == ["--a_b=c-d", "x-y", "--", "--e-f"]
    assert underscored(["--jvm-words", "--add-opens a-b=c"]) == ["--jvm_words", "--add-opens a-b=c"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_accepts_dashes_and_refuses_unknown_options(name):
    needed = ["--truth", "t", "--output", "o", "--module", "m"]
    finished = command(
        name, "--s3-endpoint-url", "http://localhost:1", "--billing-projekt", "x", "y", *needed
    )
    assert finished.returncode == 2
    assert "--billing_project" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_run(good, tmp_path, http_server, sent):
    http_server.files["/slow.png"] = Reply(body=b"never read", delay=60)
    uris = uri_list(tmp_path / "slow.txt", [http_server.url_of("/slow.png")])
    arguments = {**good, "--input": uris}
    process = subprocess.Popen(
        [sys.executable, "-m", "beamlabel", *map(str, flat(arguments)), "--allow_http", "--allow_private_hosts"],
        stderr=subprocess.PIPE, text=True, env={**os.environ},
    )  # fmt: skip
    while not http_server.count("/slow.png") and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + sent, stderr
    assert f"Cancelled by {sent.name}" in stderr
    assert not (tmp_path / "out" / "_MANIFEST.json").exists()
