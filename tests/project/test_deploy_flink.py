"""``deploy/flink/`` is valid for Kubernetes, the operator, Compose, Beam and beamlabel, and its parts match.

No test builds or applies the files, since there is no engine or cluster; ``test_flink_pool.py`` runs the programs.
"""

import re
import shutil
import socket
import subprocess
import sys
import zipfile

import jsonschema
import kubernetes_validate
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import environments

import support.flink_deployment as deployment
from beamlabel import __version__
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.parser import parse
from beamlabel.pipeline.process import exit as exit_codes
from beamlabel.pipeline.runners import choose
from beamlabel.pipeline.runners.check_runner import check_runner
from support.flink_deployment import DIRECTORY, ROOT
from support.locked import check_install

LAUNCHES = ["job.yaml", "compose.yaml"]
DOCKERFILES = ["Dockerfile", "Dockerfile.launcher"]
# Variables that the user of compose.yaml sets.
REST = ["--input", "/data/photos/", "--module", "/data/module.tar.gz", "--output", "/data/labels"]


def chosen(name):
    options, runner_args = parse(
        [*deployment.launch_options(name), *(REST if name == "compose.yaml" else [])]
    )
    return options, runner_args, choose.choose(runner_args)


@pytest.mark.parametrize("name", ["cluster.yaml", "job.yaml"])
def test_the_objects_are_valid(name):
    for item in deployment.documents(name):
        deployment.check_object(item)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "flinkVersion"), "1.19"),
        (("spec", "flinkConfiguration", "taskmanager.numberOfTaskSlots"), 1),
        (("spec", "taskManager", "slots"), 1),
        (("spec", "taskManager", "podTemplate", "spec", "initContainer"), []),
        (("spec", "taskManager", "podTemplate", "spec", "volumes", 0, "emptyDir", "limit"), "1Gi"),
    ],
)
def test_files_that_the_operator_refuses_fail_the_check(path, value):
    item = inner = deployment.cluster()
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        deployment.check_object(item)


def test_files_that_kubernetes_refuses_fail_the_check():
    (job,) = deployment.documents("job.yaml")
    job["spec"]["podFailurePolicy"]["rules"][0]["onExitCode"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        deployment.check_object(job)


def test_the_compose_file_is_valid():
    deployment.check_compose(deployment.compose(DATA="/photos"))
    with pytest.raises(ValueError, match="DATA"):
        deployment.compose()


@pytest.mark.parametrize(
    ("service", "key", "value"),
    [
        ("workers", "network", "host"),
        ("workers", "network_mode", "service:task_manager"),
        ("launcher", "depends_on", {"worker": {"condition": "service_healthy"}}),
        ("workers", "build", {"context": "../..", "dockerfile": "deploy/flink/Dockerfile.worker"}),
    ],
)
def test_files_that_compose_refuses_fail_the_check(service, key, value):
    project = deployment.compose(DATA="/photos")
    project["services"][service][key] = value
    with pytest.raises(ValueError, match=r"network|task_manager|worker"):
        deployment.check_compose(project)


def test_images_are_of_the_pinned_versions():
    used = [argument.split()[0] for name in DOCKERFILES for _, argument in froms(name)]
    used += [deployment.sidecar()["image"], deployment.launcher_pod()["containers"][0]["image"]]
    used += [service["image"] for service in deployment.compose(DATA="/")["services"].values()]
    used.append(deployment.cluster()["spec"]["image"])
    flink = deployment.cluster()["spec"]["flinkVersion"].removeprefix("v").replace("_", ".")
    beam = re.search(
        r"^apache-beam==(\S+) ; python_full_version >= '3.11'$",
        (ROOT / "constraints.txt").read_text(),
        re.MULTILINE,
    )[1]
    python = {image.split(":")[1].split("-")[0] for image in used if image.startswith("python:")}
    assert python == {"3.11"}
    expected = {
        f"apache/beam_python{python.pop()}_sdk": beam,
        f"apache/beam_flink{flink}_job_server": beam,
        "REGISTRY/beamlabel-worker": __version__,
        "REGISTRY/beamlabel-launcher": __version__,
        "beamlabel-worker": __version__,
        "beamlabel-launcher": __version__,
    }
    tags = dict(image.split(":") for image in used)
    assert tags["flink"].startswith(f"{flink}.")
    assert {name: tag for name, tag in tags.items() if name not in ("python", "flink")} == expected
    assert len({image for image in used if image.startswith(("python:", "flink:"))}) == 2


def froms(name):
    return [pair for pair in deployment.dockerfile(name) if pair[0] == "FROM"]


@pytest.mark.parametrize("name", LAUNCHES)
def test_every_option_is_known(name):
    """Every option belongs to beamlabel or to Beam; Beam drops unknown ones with only a warning."""
    _, runner_args, runner = chosen(name)
    assert runner.kind == choose.FLINK
    assert not runner.detached
    assert all(argument.startswith("--") for argument in runner_args)
    known = runner.options.get_all_options()
    assert [argument for argument in runner_args if argument[2:].partition("=")[0] not in known] == []


@pytest.mark.parametrize("name", LAUNCHES)
def test_the_launch_passes_the_preflight(name, tmp_path):
    """The launch uses addresses and files of this machine in place of the containers'."""
    options, runner_args, _ = chosen(name)
    jar = tmp_path / "job-server.jar"
    jar.touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = {"flink_master": f"127.0.0.1:{server.getsockname()[1]}", "flink_job_server_jar": jar}
        arguments = [*runner_args, *(f"--{key}={value}" for key, value in here.items())]
        arguments.append(f"--job_server_java_launcher={sys.executable}")
        check_runner(choose.choose(arguments), options.output.output, options.inputs.input)
        without = [argument for argument in arguments if not argument.startswith("--environment")]
        if name == "compose.yaml":
            with pytest.raises(UsageError, match="container"):
                check_runner(choose.choose(without), options.output.output, options.inputs.input)


@pytest.mark.parametrize("name", LAUNCHES)
def test_nothing_is_staged_so_that_no_directory_needs_to_be_shared(name):
    _, runner_args, runner = chosen(name)
    assert not environments.python_sdk_dependencies(runner.options)
    others = [argument for argument in runner_args if not argument.startswith("--experiments")]
    assert environments.python_sdk_dependencies(PipelineOptions(others))


def option(name, of):
    return dict(argument[2:].split("=", 1) for argument in deployment.launch_options(of))[name]


def test_addresses_agree_on_kubernetes():
    cluster, sidecar = deployment.cluster(), deployment.sidecar()
    (port,) = sidecar["ports"]
    assert option("environment_config", "job.yaml") == f"localhost:{port['containerPort']}"
    assert sidecar["startupProbe"]["tcpSocket"]["port"] == port["name"]
    assert option("flink_master", "job.yaml") == f"{cluster['metadata']['name']}-rest:8081"
    account = deployment.documents("cluster.yaml")[1]
    assert deployment.launcher_pod()["serviceAccountName"] == account["metadata"]["name"]


def test_addresses_agree_in_compose():
    services = deployment.compose(DATA="/photos")["services"]
    assert option("environment_config", "compose.yaml") == "localhost:50000"
    assert "('localhost', 50000)" in services["workers"]["healthcheck"]["test"][-1]
    assert services["workers"]["network_mode"] == "service:taskmanager"
    assert option("flink_master", "compose.yaml") == "jobmanager:8081"
    assert services["jobmanager"]["ports"] == ["127.0.0.1:8081:8081"]
    assert (
        "jobmanager.rpc.address: jobmanager\n" in services["taskmanager"]["environment"]["FLINK_PROPERTIES"]
    )
    assert services["launcher"]["volumes"] == services["workers"]["volumes"] == ["/photos:/data"]


def test_compose_has_the_settings_of_the_cluster():
    properties = deployment.compose(DATA="/")["services"]["jobmanager"]["environment"]["FLINK_PROPERTIES"]
    settings = dict(line.split(": ", 1) for line in properties.splitlines())
    del settings["jobmanager.rpc.address"]
    assert settings.items() <= deployment.cluster()["spec"]["flinkConfiguration"].items()


@pytest.mark.parametrize("name", LAUNCHES)
def test_the_job_servers_jar_is_where_the_image_has_it(name):
    copies = [
        argument.split()
        for instruction, argument in deployment.dockerfile("Dockerfile.launcher")
        if instruction == "COPY"
    ]
    (jar,) = [words[-1] for words in copies if words[0] == "--from=job_server"]
    assert option("flink_job_server_jar", name) == jar


def test_one_worker_process_a_task_manager():
    """A worker process uses all cores of the sidecar, so a second one would compete with it."""
    assert deployment.cluster()["spec"]["flinkConfiguration"]["taskmanager.numberOfTaskSlots"] == "1"
    assert all("sdk_worker_parallelism" not in " ".join(deployment.launch_options(name)) for name in LAUNCHES)
    resources = deployment.sidecar()["resources"]
    assert resources["requests"] == resources["limits"]


def test_an_error_that_would_repeat_is_not_retried():
    (job,) = deployment.documents("job.yaml")
    codes, disruption = job["spec"]["podFailurePolicy"]["rules"]
    assert codes["onExitCodes"]["values"] == [exit_codes.TOO_MANY_FAILURES, exit_codes.USAGE]
    assert codes["onExitCodes"]["containerName"] == deployment.launcher_pod()["containers"][0]["name"]
    assert disruption["action"] == "Ignore"


def test_a_cancelled_launcher_has_time_to_cancel_the_job():
    from beamlabel.pipeline.runners.execute import _CANCEL_SECONDS

    assert deployment.launcher_pod()["terminationGracePeriodSeconds"] > _CANCEL_SECONDS
    assert deployment.compose(DATA="/")["services"]["launcher"]["stop_grace_period"] == "60s"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_files_that_an_image_copies_make_the_package(name, tmp_path):
    """The files that the Dockerfile copies and the ignore file passes are enough for pip."""
    allowed = {
        line[1:]
        for line in (DIRECTORY / f"{name}.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = set()
    for instruction, argument in deployment.dockerfile(name):
        if instruction == "COPY" and not argument.startswith("--from"):
            *sources, _ = argument.split()
            copied |= set(sources)
    assert copied == allowed
    for source in copied:
        (tmp_path / source).parent.mkdir(exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / source, symlinks=True)  # as Docker copies files
        else:
            shutil.copy(ROOT / source, tmp_path / source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", tmp_path / "wheels", tmp_path], check=True, timeout=120)
    (wheel,) = (tmp_path / "wheels").glob(f"beamlabel-{__version__}-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
    expected = {"beamlabel/transforms/module/imagenet_labels.txt", "beamlabel/pipeline/__main__.py"}
    expected |= {f"beamlabel-{__version__}.dist-info/licenses/{file}" for file in ("LICENSE", "NOTICE")}
    assert expected <= set(names)
    assert {entry.split("/")[0] for entry in names if ".dist-info" not in entry} == {"beamlabel"}
    (install,) = [
        argument for instruction, argument in deployment.dockerfile(name) if "pip install" in argument
    ]
    part = [sys.executable, tmp_path / "tools" / "lock_requirements.py", "build,base[aws]"]
    assert "boto3==" in subprocess.run(part, capture_output=True, text=True, check=True).stdout
    check_install(install)
    arguments = [argument for instruction, argument in deployment.dockerfile(name) if instruction == "ARG"]
    assert ('EXTRAS="[launcher]"' in arguments) == (name == "Dockerfile.launcher")


def test_images_can_be_named_by_digest():
    for name in DOCKERFILES:
        text = (DIRECTORY / name).read_text()
        assert all(one.startswith("${") for one in re.findall(r"^FROM (\S+)", text, re.MULTILINE))


def test_the_worker_image_starts_a_pool():
    instructions = deployment.dockerfile("Dockerfile")
    assert ("ENTRYPOINT", '["/opt/apache/beam/boot"]') in instructions
    assert ("CMD", '["--worker_pool"]') in instructions
    assert deployment.sidecar()["args"] == ["--worker_pool"]
    assert deployment.compose(DATA="/")["services"]["workers"]["command"] == "--worker_pool"
    assert ("COPY", "--from=beam /opt/apache/beam /opt/apache/beam") in instructions
    ((_, directory),) = [pair for pair in instructions if pair[0] == "WORKDIR"]
    assert any(f"mkdir --mode 1777 {directory}" in argument for _, argument in instructions)
