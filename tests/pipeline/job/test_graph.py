"""The shape of the graph: fused stages, and elements that cross a shuffle."""

from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beamlabel.pipeline.job.graph import build
from beamlabel.pipeline.job.label_job import LabelJob
from beamlabel.transforms.inference.predict import HubModelHandler
from support.graphs import STEPS, fused, names
from support.jobs import TINY, photos, prepared, uri_list

L4 = "type:nvidia-l4;count:1;install-nvidia-driver"


@pytest.fixture
def job(tmp_path: Path) -> LabelJob:
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 2))
    return prepared("--input", uris, "--output", tmp_path / "out", "--module", TINY)


def stages_with_steps(job: LabelJob, *beam_options: str) -> list:
    """The stages that open, load, label or write images, as a portable runner fuses them."""
    pipeline = beam.Pipeline(FnApiRunner(), PipelineOptions(list(beam_options)))
    build(pipeline, job)
    return [s for s in fused(pipeline.to_runner_api()) if any(step in names(s) for step in STEPS)]


@pytest.mark.parametrize(
    "hints",
    [[], [f"accelerator={L4}"], ["min_ram=8GB", "cpu_count=4"], ["max_active_bundles_per_worker=1"]],
    ids=["none", "accelerator", "ram and cpus", "bundles"],
)
def test_from_open_unit_to_write_unit_is_one_stage(job: LabelJob, hints: list[str]) -> None:
    (stage,) = stages_with_steps(job, *(f"--resource_hints={hint}" for hint in hints))
    for step in STEPS:
        assert step in names(stage), step
    assert "PlanUnits" not in names(stage)
    # Outputs of the shuffle have no hint.
    assert len({t.environment_id for t in stage.transforms if t.environment_id}) == 1


def test_a_hint_on_the_handler_alone_would_shuffle_pixels(
    job: LabelJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is why the job sets the hints: Beam does not fuse across environments."""
    monkeypatch.setattr(
        HubModelHandler, "get_resource_hints", lambda self: {"accelerator": L4}, raising=False
    )
    stages = stages_with_steps(job)
    (inferring,) = [stage for stage in stages if "BeamML_RunInference" in names(stage)]
    assert "LoadImages" not in names(inferring)
    assert "WriteUnit" not in names(inferring)
