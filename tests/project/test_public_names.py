"""``import beamlabel``: its public names, and no cost before the first use of one."""

import inspect
import json
import pydoc
import re
import subprocess
import sys

import pytest

import beamlabel
from beamlabel.pipeline.options.parser import parse
from support.paths import ROOT

# The public interface. Removing a name requires a new major version; a new name must be documented.
PUBLIC = [
    "FailedImage",
    "LabelImages",
    "LabeledImage",
    "LabeledImages",
    "LoadImages",
    "ModelHandler",
    "Predict",
    "SplitOutcomes",
    "WriteLabels",
    "__version__",
]
HEAVY = {"apache_beam", "numpy", "pyarrow", "tensorflow"}


def imported(code: str) -> set[str]:
    """The modules in a new process after this code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    return set(json.loads(done.stdout))


def test_the_public_names():
    assert sorted(beamlabel.__all__) == sorted(dir(beamlabel)) == PUBLIC
    names: dict[str, object] = {}
    exec("from beamlabel import *", names)
    assert set(PUBLIC) <= names.keys()
    with pytest.raises(AttributeError, match="Labelimages"):
        beamlabel.Labelimages  # noqa: B018


def test_pydoc_shows_them():
    text = pydoc.render_doc(beamlabel, renderer=pydoc.plaintext)
    assert re.findall(r"^    class (\w+)", text, re.MULTILINE) == [
        name for name in PUBLIC if inspect.isclass(getattr(beamlabel, name))
    ]
    assert f"VERSION\n    {beamlabel.__version__}" in text
    assert all(inspect.getdoc(getattr(beamlabel, name)) for name in PUBLIC)


def test_the_import_alone_is_light():
    code = "import sys; before = len(sys.modules); import beamlabel; assert len(sys.modules) - before < 20"
    assert not {name.partition(".")[0] for name in imported(code)} & HEAVY


def test_a_name_that_is_asked_for_is_there_and_needs_no_tensorflow():
    modules = imported("import beamlabel; assert beamlabel.LabelImages is beamlabel.LabelImages")
    assert "apache_beam" in modules
    assert "tensorflow" not in modules


@pytest.mark.parametrize("name", [name for name in PUBLIC if inspect.isclass(getattr(beamlabel, name, None))])
def test_every_argument_and_field_is_documented(name):
    """Documented under ``Args`` or ``Attributes``, in the order of the signature or on a shared line."""
    public = getattr(beamlabel, name)
    documented = inspect.getdoc(public) or ""
    arguments = [argument for argument in inspect.signature(public).parameters if argument != "labeled"]
    assert arguments
    for argument in arguments:
        assert re.search(rf"^  [\w, ]*\b{argument}\b[\w, ]*:", documented, re.MULTILINE), argument


def test_the_arguments_of_label_images():
    """Arguments that the command also has share its defaults."""
    parameters = inspect.signature(beamlabel.LabelImages).parameters
    assert next(iter(parameters)) == "module"
    assert all(p.kind is p.KEYWORD_ONLY for p in list(parameters.values())[1:])
    options, _ = parse(["--input", "a", "--module", "m", "--output", "o"])
    flat = options.flat()
    renamed = {"class_names": "labels"}
    different = {"top_k": 5, "base_dir": None, "artifact_dir": None}
    for name, parameter in parameters.items():
        option = renamed.get(name, name)
        if name in different:
            assert parameter.default == different[name]
        elif option in flat and parameter.default is not parameter.empty:
            assert parameter.default == flat[option], name
    assert {"max_bytes", "fetch_deadline", "scores", "crop", "batch_size", "load_threads"} <= flat.keys()
