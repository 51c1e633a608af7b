"""The way of the options from ``run``: only down, in ever smaller parts, as in ``docs/architecture.md``."""

import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

import beamlabel
from beamlabel.pipeline.options import job_options
from beamlabel.pipeline.options.job_options import JobOptions
from beamlabel.pipeline.options.parser import parse
from beamlabel.pipeline.run import run
from support.jobs import TINY, photos, uri_list
from support.layers import LEVELS, directory, files, imported, short
from support.paths import ROOT

GROUPS = tuple(
    kind
    for kind in vars(job_options).values()
    if isinstance(kind, type) and kind.__module__ == job_options.__name__
)
PACKAGE = Path(beamlabel.__file__).parent


class Step(NamedTuple):
    """A call that passes options on.

    Attributes:
      caller, callee: Files, such as ``pipeline/run.py``.
      held, given: The groups that the caller received, and those that it passes on.
    """

    caller: str
    callee: str
    held: frozenset[str]
    given: frozenset[str]


def ours(frame):
    """The beamlabel file that a frame runs, or None."""
    path = Path(frame.f_code.co_filename)
    return path.resolve().relative_to(ROOT).as_posix() if path.is_relative_to(PACKAGE) else None


def groups(frame):
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    values = [frame.f_locals.get(name) for name in names]
    return frozenset(type(value).__name__ for value in values if isinstance(value, GROUPS))


def walk(arguments):
    """Runs a job and returns its calls that pass options on, in order."""
    steps = {}

    def watch(frame, event, _):
        if event != "call" or not (callee := ours(frame)) or not (given := groups(frame)):
            return
        caller = frame.f_back
        while caller is not None and not ours(caller):
            caller = caller.f_back
        if caller is not None and callee != "pipeline/options/job_options.py":  # a method of the options
            steps[Step(ours(caller), callee, groups(caller), given)] = None

    options, runner_args = parse([*map(str, arguments)])
    sys.setprofile(watch)
    try:
        code = run(options, runner_args)
    finally:
        sys.setprofile(None)
    assert code == 0
    return list(steps)


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """The steps of a second night."""
    tmp_path = tmp_path_factory.mktemp("walk")
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 3))
    common = ("--module", TINY, "--input", uris, "--max_error_rate", "1")
    first = walk([*common, "--output", tmp_path / "first"])
    second = walk([*common, "--output", tmp_path / "second", "--skip_labeled", tmp_path / "first"])
    return first + second


def parts(names):
    """The groups and their subgroups."""
    return set(names) | ({kind.__name__ for kind in GROUPS} if JobOptions.__name__ in names else set())


def test_options_go_down_in_ever_smaller_parts(steps):
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    place = {short(module): directory(module) for module in files()}
    assert len(steps) > 8
    for step in steps:
        assert level[place[step.callee]] <= level[place[step.caller]], step
        assert parts(step.given) <= parts(step.held), step


def test_only_the_job_knows_the_options():
    """Lower layers get values or their own types."""
    names = {f"{job_options.__name__}.{kind.__name__}" for kind in GROUPS}
    who = {short(module) for module, path in files().items() if names & set(imported(path))}
    allowed = ("pipeline/options/", "pipeline/job/", "pipeline/commands/", "pipeline/run.py")
    assert who
    assert not {name for name in who if not name.startswith(allowed)}


def test_the_walk_is_drawn(steps):
    walked = defaultdict(set)
    for step in steps:
        if step.caller != step.callee:
            walked[step.caller, step.callee] |= step.given
    page = (ROOT / "docs" / "architecture.md").read_text()
    (picture,) = [one for one in re.findall(r"```mermaid\n(.*?)```", page, re.DOTALL) if "JobOptions" in one]
    files_of = dict(re.findall(r'(\w+)\["(pipeline/\S+\.py)"\]', picture))
    drawn = {
        (files_of[caller], files_of[callee]): set(label.split("<br/>"))
        for caller, label, callee in re.findall(r'^  (\w+) -->\|"(.*?)"\| (\w+)$', picture, re.MULTILINE)
    }
    assert drawn == dict(walked)
