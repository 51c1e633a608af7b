"""Reads ``deploy/flink/`` and checks it as Kubernetes, the Flink operator and Compose do."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import zipfile
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from support import needs
from support.paths import ROOT

DIRECTORY = ROOT / "deploy" / "flink"
OPERATOR_JARS = ROOT / ".runners" / "flink-operator"
# The first version with sidecars, and the newest that the package of schemas covers.
KUBERNETES = ("1.29", kubernetes_validate.latest_version())
BEAM = metadata.version("apache-beam")


def documents(name: str, text: str | None = None) -> list[dict[str, Any]]:
    """The objects of a file, or of its text after a substitution."""
    return list(yaml.safe_load_all((DIRECTORY / name).read_text() if text is None else text))


def cluster() -> dict[str, Any]:
    return documents("cluster.yaml")[0]


def sidecar() -> dict[str, Any]:
    (container,) = cluster()["spec"]["taskManager"]["podTemplate"]["spec"]["initContainers"]
    return container


def launcher_pod() -> dict[str, Any]:
    (job,) = documents("job.yaml")
    return job["spec"]["template"]["spec"]


def compose(**environment: str) -> dict[str, Any]:
    """The Compose file with its variables and anchors resolved."""

    def value(match: re.Match[str]) -> str:
        name, how, text = match.groups()
        if name in environment:
            return environment[name]
        if how == ":?":
            raise ValueError(f"{name} {text}")
        return text

    text = re.sub(r"\$\{(\w+)(:-|:\?)([^}]*)\}", value, (DIRECTORY / "compose.yaml").read_text())
    return yaml.safe_load(text)


def dockerfile(name: str) -> list[tuple[str, str]]:
    """Instructions and arguments; continued lines are joined, comments dropped, and image ARGs replaced by defaults."""
    text = re.sub(r"^#.*\n", "", (DIRECTORY / name).read_text(), flags=re.MULTILINE).replace("\\\n", "")
    pairs = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    images = dict(argument.split("=", 1) for instruction, argument in pairs if instruction == "ARG")
    return [
        (one, re.sub(r"\$\{(\w+)\}", lambda found: images[found[1]], argument) if one == "FROM" else argument)
        for one, argument in pairs
    ]


def operator_jar() -> Path:
    """The jar with the operator's definitions, downloaded on first use."""
    if not (jars := list(OPERATOR_JARS.glob("*.jar"))):
        if shutil.which("mvn") is None:
            needs.lacking("no Maven to fetch the definition of FlinkDeployment")
        done = subprocess.run(
            [ROOT / "tools" / "get_flink_crd.sh"], capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            needs.lacking(f"tools/get_flink_crd.sh: {done.stdout[-500:]}{done.stderr[-500:]}")
        jars = list(OPERATOR_JARS.glob("*.jar"))
    (jar,) = jars
    return jar


@cache
def flink_deployment_schema() -> dict[str, Any]:
    """The operator's schema of a FlinkDeployment; undefined fields are errors."""
    with zipfile.ZipFile(operator_jar()) as jar:
        definition = yaml.safe_load(jar.read("META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml"))
    (schema,) = [
        version["schema"]["openAPIV3Schema"]
        for version in definition["spec"]["versions"]
        if version["name"] == "v1beta1"
    ]
    _refuse_unknown_fields(schema)
    schema["properties"] |= {"apiVersion": {"const": "flink.apache.org/v1beta1"}, "metadata": {}}
    schema["properties"]["kind"] = {"const": definition["spec"]["names"]["kind"]}
    return schema


def _refuse_unknown_fields(schema: Any) -> None:
    if isinstance(schema, list):
        for part in schema:
            _refuse_unknown_fields(part)
    elif isinstance(schema, dict):
        kept = schema.get("x-kubernetes-preserve-unknown-fields")
        if "properties" in schema and "additionalProperties" not in schema and not kept:
            schema["additionalProperties"] = False
        for part in schema.values():
            _refuse_unknown_fields(part)


def check_object(item: dict[str, Any]) -> None:
    """Raises an error if an object of a file is invalid."""
    if item["kind"] != "FlinkDeployment":
        for version in KUBERNETES:
            kubernetes_validate.validate(item, version, strict=True)
        return
    jsonschema.Draft202012Validator(flink_deployment_schema()).validate(item)
    template = copy.deepcopy(item["spec"]["taskManager"]["podTemplate"])
    for version in KUBERNETES:
        as_core = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
        kubernetes_validate.validate(as_core, version, strict=True)


def check_compose(project: dict[str, Any]) -> None:
    """Raises an error if a Compose project has an invalid field, an invalid value or an undefined name."""
    compose_spec = needs_compose_spec()
    parsed = compose_spec.PyCompose.from_json(json.dumps(project))
    parsed.validate()
    parsed.to_spec()
    services = project["services"]
    for name, service in services.items():
        beside = service.get("network_mode", "").removeprefix("service:")
        for other in [*service.get("depends_on", {}), *([beside] if beside else [])]:
            if other not in services:
                raise ValueError(f"{name}: there is no service {other!r}")
        if build := service.get("build"):
            path = DIRECTORY / build["context"] / build["dockerfile"]
            if not path.is_file():
                raise ValueError(f"{name}: there is no {path}")


def needs_compose_spec() -> Any:
    try:
        import compose_spec
    except ImportError:
        needs.lacking("compose-spec has no wheel for this system")
    return compose_spec


def launch_options(name: str) -> list[str]:
    """The launcher's arguments in ``job.yaml``, or the fixed ones in ``compose.yaml``."""
    if name == "job.yaml":
        return launcher_pod()["containers"][0]["args"]
    return compose(DATA="/photos")["services"]["launcher"]["entrypoint"][1:]
