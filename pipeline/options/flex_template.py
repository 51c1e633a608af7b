"""The job's options as parameters of a Dataflow flex template, and the conversion back to a command line.

``python -m beamlabel.pipeline.options.flex_template > deploy/dataflow/metadata.json`` writes the template's metadata.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.declare import Option
from beamlabel.pipeline.options.job_options import job_options
from beamlabel.pipeline.options.parser import DESCRIPTION
from beamlabel.pipeline.options.types import TEXT, whole

_FLAG = "^([tT]rue|[fF]alse)$"
_WHOLE = whole(0).regex
# Options of the job that apply only to a run on this machine.
LOCAL = frozenset({"worker_processes"})
_AS_IN_A_SHELL = "; separate several values by spaces, and quote a value that contains a space as in a shell"

# Beam's own options that `gcloud dataflow flex-template run` has no flag for: help, regex, whether it is required.
_IMAGE = "container image of the workers, built from deploy/dataflow/worker.Dockerfile"
_THREADS = "work units that a worker process labels at the same time; each keeps its own images in memory"
_HINTS = "resources that all steps need, such as accelerator=type:nvidia-l4;count:1;install-nvidia-driver, min_ram=8GB"
_SERVICE = (
    "options of the service, such as worker_accelerator=type:nvidia-tesla-t4;count:1;install-nvidia-driver"
)
_SCALING = "NONE: keep --num-workers workers from start to end"
_OF_BEAM = {
    "sdk_container_image": (_IMAGE, TEXT.regex, True),
    "number_of_worker_harness_threads": (_THREADS, _WHOLE, False),
    "resource_hints": (_HINTS, "^[A-Za-z_]+=.+$", False),
    "dataflow_service_options": (_SERVICE, TEXT.regex, False),
    "autoscaling_algorithm": (_SCALING, "^(NONE|THROUGHPUT_BASED)$", False),
    "disk_size_gb": ("boot disk of a worker, in GB", _WHOLE, False),
}
_LISTS_OF_BEAM = ("resource_hints", "dataflow_service_options")


def _regex(one: Option) -> str:
    if one.is_flag or one.type is None:
        return _FLAG
    return f"^({'|'.join(one.choices)})$" if one.choices else one.type.regex


def _parameter(name: str, text: str, regex: str, *, needed: bool) -> dict[str, Any]:
    return {
        "name": name,
        "label": name.replace("_", " ").capitalize(),
        "helpText": text,
        "isOptional": not needed,
        "regexes": [regex],
    }


def metadata() -> dict[str, Any]:
    """The template's ``metadata.json``: a ``TemplateMetadata`` of Dataflow's API."""
    parameters = []
    for one in job_options():
        if one.name in LOCAL:
            continue
        text = one.help + _AS_IN_A_SHELL * one.is_list
        parameters.append(_parameter(one.name, text, _regex(one), needed=one.is_required))
    for name, (help_text, regex, needed) in _OF_BEAM.items():
        help_text += _AS_IN_A_SHELL * (name in _LISTS_OF_BEAM)
        parameters.append(_parameter(name, help_text, regex, needed=needed))
    return {"name": "beamlabel", "description": DESCRIPTION, "parameters": parameters}


def command_line(parameters: Sequence[str]) -> list[str]:
    """Converts parameters, which a template's launcher passes as ``--name=value``, into options.

    There, a flag is ``true`` or ``false``, a list is one value, and a form field that was left empty is an empty
    value.

    Raises:
      UsageError: a flag is neither, or a list has an unclosed quote.
    """
    options = {one.name: one for one in job_options()}
    optional = {name for name, one in options.items() if not one.is_required}
    optional |= {name for name, (_, _, needed) in _OF_BEAM.items() if not needed}
    argv: list[str] = []
    for option in _joined(parameters):
        name, is_given, value = option.removeprefix("--").partition("=")
        one = options.get(name)
        if is_given and not value and name in optional:
            continue
        if name == "labels" and value.startswith("{"):
            argv.append(f"--label={value}")  # labels of the Dataflow job; Beam accepts both names
        elif one is not None and one.is_flag and is_given:
            argv += [f"--{name}"] * _truth(name, value)
        elif (one is not None and one.is_list) or name in _LISTS_OF_BEAM:
            argv += [f"--{name}={word}" for word in _words(name, value)]
        else:
            argv.append(option)
    # A template runs on Dataflow only. Google does not document whether its launcher passes --runner.
    named = any(option.split("=", 1)[0] == "--runner" for option in argv)
    return argv if named else [*argv, "--runner=DataflowRunner"]


def _joined(parameters: Sequence[str]) -> list[str]:
    """Joins ``--name value`` into one word."""
    words: list[str] = []
    for word in parameters:
        if not word.startswith("--") and words and "=" not in words[-1]:
            words[-1] += "=" + word
        else:
            words.append(word)
    return words


def _truth(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise UsageError(f"--{name} {value!r} is neither true nor false")
    return value.lower() == "true"


def _words(name: str, value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError as error:
        raise UsageError(f"--{name} {value!r}: {error}") from error


if __name__ == "__main__":
    json.dump(metadata(), sys.stdout, indent=2)
    sys.stdout.write("\n")
