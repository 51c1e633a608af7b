"""deploy/dataflow: the template's metadata, its images, and the script that deploys them to Google Cloud.

The tests cannot build images without an engine, so they check the Dockerfiles' text.
"""

import io
import json
import os
import re
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from dockerfile_parse import DockerfileParser
from google.cloud.dataflow_v1beta3.types import TemplateMetadata

from beamlabel import __version__
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.flex_template import LOCAL, command_line, metadata
from beamlabel.pipeline.options.job_options import job_options
from beamlabel.pipeline.options.parser import parse
from beamlabel.pipeline.options.types import (
    BYTE_SIZE,
    DATE,
    DURATION,
    HTTP_HEADER,
    IMAGE_SIZE,
    INPUT_RANGE,
    NAMES,
    PROJECT,
    SCHEMES,
    SHA256,
    TEXT,
    USER_AGENT,
    number,
    whole,
)
from beamlabel.pipeline.runners.choose import DATAFLOW, choose
from support.locked import check_install
from support.needs import lacking
from support.paths import ROOT

DEPLOY = ROOT / "deploy" / "dataflow"
TOOLS = Path(sys.executable).parent
PARAMETERS = {
    parameter["name"]: parameter
    for parameter in json.loads((DEPLOY / "metadata.json").read_text())["parameters"]
}
OPTIONS = {one.name: one for one in job_options() if one.name not in LOCAL}
NEEDED = ["--input=gs://b/in.txt", "--module=demo", "--output=gs://b/out"]
# The values to try for each kind.
VALUES = {
    whole(1).regex: ("1", "64", "1_000", "007", "0", "-1", "1.5", "_1", "x", ""),
    number(0, 1, above_low=True).regex: ("0.05", "1", "1e-3", ".5", "1.", "+0.5", " 0.25 ", "1_0e-2", "-0", "nan", "x"),
    BYTE_SIZE.regex: ("500000", "64M", "1g", "10KiB", "5b", "12MB", "0", "-1", "1T", "64 M", "x"),
    IMAGE_SIZE.regex: ("224", "160x224", "0", "224X224", "224x", "x", "100000"),
    DATE.regex: ("2026-01-31", "2026-1-31", "today", "2026-02-30"),
    DURATION.regex: ("6h", "90m", "1h30m", "2H5s", "0h", "h", "6", "m6"),
    NAMES.regex: ("timeout", "timeout,forbidden"),
    INPUT_RANGE.regex: ("0,1", "-1,1", "0, 255", "0,2", "1", "x"),
    HTTP_HEADER.regex: ("X-Client=museum", "X-Empty=", "Authorization=Bearer a=b", "museum", "=x"),
    USER_AGENT.regex: ("museum-labels/1.0 (+https://museum.example.org/bot)", "x", ""),
    SHA256.regex: ("0123456789abcdefABCD" + "0" * 44, "0" * 63, "x" * 64),
    SCHEMES.regex: ("gs,https", "file", "GS,s3", "", "a b"),
    PROJECT.regex: ("my-project-1", "example.com:my-project", "12345", "My Project"),
    TEXT.regex: ("gs://b/a word", "x=1;y", "-1"),
}  # fmt: skip


def accepted(words: list[str]) -> bool:
    try:
        parse(words)
    except UsageError:
        return False
    return True


def test_the_metadata_is_made_of_the_options():
    """After a change: python -m beamlabel.pipeline.options.flex_template > deploy/dataflow/metadata.json."""
    assert json.loads((DEPLOY / "metadata.json").read_text()) == metadata()


def test_the_metadata_is_dataflows():
    told = TemplateMetadata.from_json((DEPLOY / "metadata.json").read_text(), ignore_unknown_fields=False)
    assert [parameter.name for parameter in told.parameters] == list(PARAMETERS)
    assert all(parameter.label and parameter.help_text and parameter.regexes for parameter in told.parameters)


def test_every_option_is_a_parameter_and_the_others_are_beams():
    assert set(OPTIONS) <= set(PARAMETERS)
    beams = PipelineOptions([]).get_all_options()
    assert set(PARAMETERS) - set(OPTIONS) <= set(beams)
    for name, one in OPTIONS.items():
        assert PARAMETERS[name]["isOptional"] is not one.is_required, name
        assert one.help in PARAMETERS[name]["helpText"], name


def test_the_page_names_options_that_there_are():
    page = (ROOT / "docs" / "dataflow.md").read_text()
    named = set(re.findall(r"--([a-z]+(?:_[a-z]+)+)\b", page)) - {"no_use_public_ips"}
    assert {"worker_threads", "number_of_worker_harness_threads", "flexrs_goal"} <= named
    assert named <= {*OPTIONS, *LOCAL, *PipelineOptions([]).get_all_options()}
    for program in re.findall(r"```bash\n(beamlabel .*?)```", page, re.DOTALL):
        _, for_beam = parse(shlex.split(program.replace("\\\n", " "))[1:])
        assert choose(for_beam).kind == DATAFLOW


@pytest.mark.parametrize("name", OPTIONS)
def test_a_regex_accepts_the_same_values_as_the_option(name: str):
    one = OPTIONS[name]
    (pattern,) = PARAMETERS[name]["regexes"]
    assert "\\" not in pattern and "(?" not in pattern, "POSIX's extended syntax has neither"
    if one.choices:
        values: tuple[str, ...] = (*one.choices, "neither")
    elif one.type is None:
        values = ("true", "false", "True", "maybe")
    else:
        values = VALUES[one.type.regex]
    others = [word for word in NEEDED if not word.startswith(f"--{name}=")]
    # Further options that an option requires.
    others += {
        "tfrecord_compression": ["--output_format=tfrecord"],
        "changed": ["--skip_labeled=gs://b/labels/"],
        "reasons": ["--retry_failures=gs://b/labels/"],
        "http_header": ["--allow_http=true"],
    }.get(name, [])
    taken = {
        value: accepted(command_line([*others, f"--{name}={value}"])) for value in values if value != "maybe"
    }
    for value, is_taken in taken.items():
        if value and is_taken:
            assert re.fullmatch(pattern, value), value
    assert any(taken.values())
    # A free text, or the name of the user agent, may be anything.
    if one.type not in (TEXT, USER_AGENT) or one.choices:
        assert not re.fullmatch(pattern, "neither, nor"), "a regex that accepts everything is useless"


def test_parameters_become_a_command_line():
    argv = command_line([
        "--input=gs://b/a.txt 'gs://b/two words.txt'", "--module", "demo", "--output=gs://b/out",
        "--no_embeddings=True", "--allow_http=false", "--limit=", "--labels=gs://b/names.txt",
        '--labels={"team": "photos"}', "--resource_hints=min_ram=8GB accelerator=type:nvidia-l4;count:1",
        "--disk_size_gb=", "--input_range", "-1,1", "--machine_type=n2-standard-4",
    ])  # fmt: skip
    options, for_beam = parse(argv)
    assert options.inputs.input == ("gs://b/a.txt", "gs://b/two words.txt")
    assert (options.module.module, options.output.output, options.module.labels) == (
        "demo",
        "gs://b/out",
        "gs://b/names.txt",
    )
    assert options.module.no_embeddings is True
    assert options.loading.allow_http is False
    assert options.inputs.limit is None
    assert options.module.input_range == (-1.0, 1.0)
    assert for_beam == [
        '--label={"team": "photos"}', "--resource_hints=min_ram=8GB",
        "--resource_hints=accelerator=type:nvidia-l4;count:1", "--machine_type=n2-standard-4",
        "--runner=DataflowRunner",
    ]  # fmt: skip
    assert command_line(["--runner=DirectRunner"]) == ["--runner=DirectRunner"]


@pytest.mark.parametrize("word", ["--no_embeddings=maybe", "--input='gs://b/a"])
def test_a_parameter_that_is_none(word: str):
    name = word[2:].partition("=")[0]
    with pytest.raises(UsageError, match=f"--{name}"):
        command_line([word])
    done = subprocess.run(
        [sys.executable, str(DEPLOY / "launch.py"), word],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"beamlabel: error: --{name}" in done.stderr


@pytest.mark.parametrize("name", ["launcher", "worker"])
def test_the_linter_has_nothing_to_say_of_an_image(name: str):
    tool = TOOLS / "hadolint"
    if not tool.exists():
        lacking("hadolint is not installed; its wheel is for Linux on x86-64")
    done = subprocess.run([tool, DEPLOY / f"{name}.Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def dockerfile(name: str) -> DockerfileParser:
    return DockerfileParser(fileobj=io.BytesIO((DEPLOY / f"{name}.Dockerfile").read_bytes()))


def is_sent(name: str, path: str) -> bool:
    """Whether an image's .dockerignore passes a path to the engine: the last matching rule decides."""
    sent = True
    parts = path.split("/")
    prefixes = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    for rule in (DEPLOY / f"{name}.Dockerfile.dockerignore").read_text().splitlines():
        if rule[:1] != "#" and any(fnmatch(prefix, rule.removeprefix("!")) for prefix in prefixes):
            sent = rule.startswith("!")
    return sent


@pytest.mark.parametrize("name", ["launcher", "worker"])
def test_an_image_is_made_of_existing_files(name: str):
    copied = []
    for step in dockerfile(name).structure:
        if step["instruction"] == "COPY" and not step["value"].startswith("--from"):
            copied += step["value"].split()[:-1]
    files = {"pyproject.toml", "requirements.lock", "tools/lock_requirements.py", "LICENSE", "NOTICE"}
    assert files | {"beamlabel", "pipeline", "transforms"} <= set(copied)
    (install,) = [step["value"] for step in dockerfile(name).structure if "pip install" in step["value"]]
    check_install(install, may_add="${PACKAGES}" if name == "worker" else None)
    for path in copied:
        assert (ROOT / path).exists(), path
        assert is_sent(name, path), path
    assert not is_sent(name, "tests/pipeline/options/test_cli.py")
    assert not is_sent(name, ".venv/bin/python")


def test_the_images_fit_each_other_and_the_constraints():
    worker, launcher = dockerfile("worker"), dockerfile("launcher")
    pinned = re.search(
        r"^apache-beam==(\S+) ; python_full_version >= '3.11'", (ROOT / "constraints.txt").read_text(), re.M
    )
    assert worker.parent_images[0] == f"apache/beam_python3.11_sdk:{pinned[1]}"
    assert worker.baseimage == launcher.baseimage == "python:3.11-slim-bookworm"
    assert "python311" in launcher.parent_images[0]
    extras = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1]
    for file in (worker, launcher):
        for words in re.findall(r"EXTRAS=\"?\[([a-z,]+)", file.content):
            assert all(f"\n{extra} = [" in extras for extra in words.split(",")), words
    assert launcher.envs["FLEX_TEMPLATE_PYTHON_PY_FILE"] == "/template/launch.py"
    assert "WORKDIR /template\nCOPY deploy/dataflow/launch.py ./" in launcher.content


@pytest.fixture
def submit(tmp_path: Path):
    """Runs submit.sh with stand-ins for gcloud, docker and beamlabel that record their arguments."""
    log = tmp_path / "log"
    for name in ("gcloud", "docker", "beamlabel"):
        program = tmp_path / name
        states = 'case "$*" in *describe*) [ -e {0} ] && echo JOB_STATE_DONE || echo JOB_STATE_RUNNING; touch {0}; esac'
        program.write_text(
            f"#!/bin/sh\nprintf '%s\\0' {name} \"$@\" >> {log}\nprintf '\\n\\0' >> {log}\n"
            + states.format(tmp_path / "asked") + "\n"
        )  # fmt: skip
        program.chmod(0o755)

    def run(*words: str) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
        environment = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}", "PROJECT": "a-project-1", "REGION": "us-central1",
            "BUCKET": "a-bucket", "POLL_SECONDS": "0",
        }  # fmt: skip
        script = str(DEPLOY / "submit.sh")
        done = subprocess.run([script, *words], env=environment, capture_output=True, text=True, cwd=tmp_path)
        calls = log.read_text().split("\0\n\0") if log.exists() else []
        return done, [call.split("\0") for call in calls if call]

    return run


def test_build_makes_pushes_and_registers(submit):
    done, calls = submit("build")
    assert done.returncode == 0, done.stderr
    worker, launcher = (
        f"us-central1-docker.pkg.dev/a-project-1/beamlabel/{name}:{__version__}"
        for name in ("worker", "launcher")
    )
    assert [call[:2] for call in calls] == [
        ["gcloud", "auth"], ["docker", "build"], ["docker", "build"], ["docker", "push"], ["docker", "push"],
        ["gcloud", "dataflow"],
    ]  # fmt: skip
    assert calls[1][2:] == ["--file", "deploy/dataflow/worker.Dockerfile", "--tag", worker, "."]
    assert calls[3:5] == [["docker", "push", worker], ["docker", "push", launcher]]
    assert calls[5][3:5] == ["build", f"gs://a-bucket/templates/beamlabel-{__version__}.json"]
    assert launcher in calls[5] and "deploy/dataflow/metadata.json" in calls[5]


def test_run_hands_every_word_to_whom_it_is_for(submit):
    done, calls = submit(
        "run", "--max-workers=50", "input=gs://b/a.txt 'gs://b/two, words.txt'", "module=demo", "output=gs://b/out",
        "no_embeddings=true", "resource_hints=accelerator=type:nvidia-l4;count:1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (call,) = calls
    assert "--max-workers=50" in call
    given = call[call.index("--parameters") + 1]
    # As gcloud reads it: the text between two ^ separates the parameters.
    _, delimiter, words = given.split("^", 2)
    parameters = dict(word.split("=", 1) for word in words.split(delimiter))
    assert set(parameters) <= set(PARAMETERS)
    assert {name for name, parameter in PARAMETERS.items() if not parameter["isOptional"]} <= set(parameters)
    options, for_beam = parse(command_line([f"--{name}={value}" for name, value in parameters.items()]))
    assert options.inputs.input == ("gs://b/a.txt", "gs://b/two, words.txt")
    assert options.module.no_embeddings
    image = f"us-central1-docker.pkg.dev/a-project-1/beamlabel/worker:{__version__}"
    assert f"--sdk_container_image={image}" in for_beam


def test_publish_waits_for_the_job(submit):
    done, calls = submit("publish", "a-job", "gs://b/out")
    assert done.returncode == 0, done.stderr
    assert [call[:4] for call in calls] == [["gcloud", "dataflow", "jobs", "describe"]] * 2 + [
        ["beamlabel", "publish", "gs://b/out"]
    ]


@pytest.mark.parametrize(
    "words", [(), ("run", "--max-workers=2", "word"), ("publish", "a-job"), ("run", "input=~/x")]
)
def test_a_wrong_use_of_the_script_calls_nothing(words, submit):
    done, calls = submit(*words)
    assert done.returncode == 2
    assert "submit.sh" in done.stderr
    assert calls == []
