"""Every installed package has a hash: the lock has the versions of the constraints and a part per extra."""

import importlib.util
import re

import pytest

from support.paths import ROOT

LOCK = (ROOT / "requirements.lock").read_text()
PIN = re.compile(r"^([a-z0-9._-]+)==([^ ;\n]+)( ; [^\\\n]+)?", re.MULTILINE)


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location(
        "lock_requirements", ROOT / "tools" / "lock_requirements.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pins(text):
    return {(name, version, (marker or "").strip()) for name, version, marker in PIN.findall(text)}


def test_the_lock_has_the_versions_of_the_constraints():
    assert pins(LOCK) == pins((ROOT / "constraints.txt").read_text())
    assert len(pins(LOCK)) > 300


def test_each_version_has_hashes():
    for stanza in re.split(r"^# of: .*\n", LOCK, flags=re.MULTILINE)[:-1]:
        assert re.search(r" --hash=sha256:[0-9a-f]{64}$", stanza, re.MULTILINE), stanza[:80]


def test_each_extra_has_its_part(tool):
    table = re.search(
        r"^\[project\.optional-dependencies\]$(.*?)^\[", (ROOT / "pyproject.toml").read_text(), re.M | re.S
    )[1]
    extras = {}
    for line in table.splitlines():
        if found := re.fullmatch(r"([a-z0-9_-]+) = \[", line):
            named = extras.setdefault(found[1], set())
        elif found := re.match(r'\s*"([A-Za-z0-9._-]+)', line):
            named.add(found[1].lower().replace("_", "-").replace(".", "-"))
    assert len(extras) > 10
    base = {name for name, *_ in pins(tool.part(LOCK, {"base"}))}
    assert {"apache-beam", "numpy", "pyarrow"} <= base and "tensorflow" not in base
    for extra, named in extras.items():
        assert named <= {name for name, *_ in pins(tool.part(LOCK, {"base", extra}))}, extra
    assert {name for name, *_ in pins(tool.part(LOCK, {"build"}))} == {"setuptools"}


def test_a_part_is_the_lines_that_pip_reads(tool):
    part = tool.part(LOCK, {"build", "base", "launcher"})
    assert not [line for line in part.splitlines() if line.startswith("#")]
    assert "tensorflow==" in part and "pytest==" not in part


def test_a_part_can_be_named_as_pip_has_it(tool, capsys):
    assert tool.main(["build,base[aws,azure]"]) == 0
    assert capsys.readouterr().out == tool.part(LOCK, {"build", "base", "aws", "azure"})
    assert tool.main(["build,base"]) == 0
    assert capsys.readouterr().out == tool.part(LOCK, {"build", "base"})


def test_a_package_has_its_lines(tool):
    assert {name for name, *_ in pins(tool.part(LOCK, {"=tfx-bsl"}))} == {"tfx-bsl"}
    with pytest.raises(tool.LockError, match="no =frobnicate"):
        tool.part(LOCK, {"=frobnicate"})


def test_an_extra_that_there_is_not(tool):
    with pytest.raises(tool.LockError, match="no frobnicate; there are"):
        tool.part(LOCK, {"base", "frobnicate"})
