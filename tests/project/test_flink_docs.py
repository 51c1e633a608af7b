"""``docs/flink.md`` is correct: bash runs its commands, and their calls of cluster programs are checked.

helm, docker, kubectl and gsutil are stand-ins that record their arguments and standard input; sed, mkdir and the shell
are real. The input of kubectl is checked as the objects it would apply.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import support.flink_deployment as deployment
from beamlabel import __version__
from beamlabel.pipeline.options.parser import parse
from beamlabel.pipeline.runners import choose
from support.flink_deployment import ROOT

PAGE = (ROOT / "docs" / "flink.md").read_text()
STANDINS = ("helm", "docker", "kubectl", "gsutil", "beamlabel", "bin/start-cluster.sh", "bin/stop-cluster.sh")
RECORD = """#!{python} -S
import json, sys
arguments = sys.argv[1:]
given = sys.stdin.read() if "-" in arguments else ""
with open({log!r}, "a") as log:
    log.write(json.dumps([{name!r}, arguments, given]) + "\\n")
if arguments[:1] == ["create"]:
    print("job.batch/beamlabel-x7k2p")
"""


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """The calls of programs by the page's commands, in order: program, arguments, standard input."""
    directory = tmp_path_factory.mktemp("page")
    for name in STANDINS:
        program = directory / name if "/" in name else directory / "path" / name
        program.parent.mkdir(exist_ok=True)
        log = str(directory / "log")
        program.write_text(RECORD.format(python=sys.executable, log=log, name=name))
        program.chmod(0o755)
    (directory / "deploy").symlink_to(ROOT / "deploy")
    script = "set -euo pipefail\n" + "\n".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL))
    path = os.pathsep.join([str(directory / "path"), "/usr/bin", "/bin"])
    subprocess.run(["bash", "-c", script], cwd=directory, env={"PATH": path}, check=True, timeout=60)
    assert (directory / "out" / "flink" / "photos").is_dir()
    return [json.loads(line) for line in (directory / "log").read_text().splitlines()]


def told(calls, program, *first):
    return [
        (arguments, given)
        for name, arguments, given in calls
        if name == program and arguments[: len(first)] == [*first]
    ]


def value(arguments, *options):
    """The value of the first present option, as the next word or joined by =."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, joined, text = argument.partition("=")
        if name in options:
            return text if joined else following
    raise AssertionError(f"none of {options} in {arguments}")


def test_every_program_is_one_of_those_that_are_checked(calls):
    assert {name for name, _, _ in calls} == set(STANDINS)
    assert {arguments[0] for arguments, _ in told(calls, "kubectl")} == {
        "apply", "wait", "create", "logs", "get", "port-forward", "delete", "exec", "run",
    }  # fmt: skip
    assert {arguments[0] for arguments, _ in told(calls, "docker")} == {"build", "push", "compose"}


def test_the_operator_is_of_the_version_whose_definition_is_checked(calls):
    version = re.search(r"^version=(\S+)$", (ROOT / "tools" / "get_flink_crd.sh").read_text(), re.MULTILINE)[
        1
    ]
    ((added, _),) = told(calls, "helm", "repo", "add")
    ((installed, _),) = told(calls, "helm", "install")
    assert added[-1].endswith(f"/flink-kubernetes-operator-{version}/")
    assert installed[2] == f"{added[2]}/flink-kubernetes-operator"


def test_what_is_applied_is_valid_and_its_images_are_built_and_pushed(calls):
    ((_, cluster),) = told(calls, "kubectl", "apply")
    ((_, job),) = told(calls, "kubectl", "create")
    for text in (cluster, job):
        assert not re.search(r"^[^#]*(REGISTRY|BUCKET)", text, re.MULTILINE)
        for item in yaml.safe_load_all(text):
            deployment.check_object(item)
    used = set(re.findall(r"image: (registry\S+)", cluster + job))
    built = {
        value(arguments, "-t"): value(arguments, "-f") for arguments, _ in told(calls, "docker", "build")
    }
    assert set(built) == used == {arguments[1] for arguments, _ in told(calls, "docker", "push")}
    for tag, dockerfile in built.items():
        assert (ROOT / dockerfile).is_file()
        assert (
            f"-t {tag.replace('registry.example.com/team', 'REGISTRY')} ." in (ROOT / dockerfile).read_text()
        )
    ((run, _),) = told(calls, "kubectl", "run")
    assert value(run, "--image") in used
    assert value(run, "--image").endswith(f"/beamlabel-launcher:{__version__}")


def test_names_are_those_of_the_files(calls):
    name = deployment.cluster()["metadata"]["name"]
    job = deployment.documents("job.yaml")[0]["metadata"]["generateName"]
    words = [argument for arguments, _ in told(calls, "kubectl") for argument in arguments]
    names = {
        word for word in words if re.fullmatch(r"(deployment|flinkdeployment|service|job\.batch)/\S+", word)
    }
    job_name = f"job.batch/{job}x7k2p"
    assert names == {f"flinkdeployment/{name}", f"service/{name}-rest", f"deployment/{name}", job_name}
    ((run, _),) = told(calls, "kubectl", "run")
    account = json.loads(value(run, "--overrides"))["spec"]["serviceAccountName"]
    assert account == deployment.launcher_pod()["serviceAccountName"]


def test_publish_is_told_the_jobs_output(calls):
    ((run, _),) = told(calls, "kubectl", "run")
    output = value(deployment.launcher_pod()["containers"][0]["args"], "--output")
    assert run[run.index("--") + 1 :] == ["publish", output.replace("BUCKET", "my-bucket")]
    ((listed, _),) = told(calls, "gsutil")
    assert listed == ["ls", f"{run[-1]}/_beamlabel/staging/**"]


def test_compose_is_told_of_services_and_options_that_there_are(calls):
    project = deployment.compose(DATA="/photos")
    deployment.check_compose(project)
    commands = [arguments for arguments, _ in told(calls, "docker", "compose")]
    assert [arguments[3] for arguments in commands] == ["up", "run", "run", "down"]
    assert all((ROOT / value(arguments, "-f")).is_file() for arguments in commands)
    launch, publish = commands[1], commands[2]
    arguments = launch[launch.index("launcher") + 1 :]
    options, runner_args = parse([*deployment.launch_options("compose.yaml"), *arguments])
    assert choose.choose(runner_args).kind == choose.FLINK
    assert value(publish, "--entrypoint") == project["services"]["launcher"]["entrypoint"][0]
    assert publish[publish.index("launcher") + 1 :] == ["publish", options.output.output]
    (recreate,) = re.findall(r"`docker compose (-f [^`]*--force-recreate[^`]*)`", PAGE)
    assert set(shlex.split(recreate)[-2:]) == {"taskmanager", "workers"} <= set(project["services"])


def test_the_launch_on_machines_of_ones_own_is_understood(calls):
    ((arguments, _),) = told(calls, "beamlabel")
    _, runner_args = parse(arguments)
    runner = choose.choose(runner_args)
    known = runner.options.get_all_options()
    assert runner.kind == choose.FLINK
    assert f"v{known['flink_version']}".replace(".", "_") == deployment.cluster()["spec"]["flinkVersion"]
    assert known["environment_type"] == "PROCESS"
    assert Path(json.loads(known["environment_config"])["command"]).name == "beamlabel-worker"
    names = [argument[2:] for argument in runner_args if argument.startswith("--")]
    assert [name for name in names if name not in known] == []
