"""Rows that cannot be relabeled are refused before the run; the error names the option and the remedy."""

import dataclasses
import json
import shutil

import pytest

from beamlabel.pipeline.commands.relabel import parse
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.parser import parse as parse_job
from beamlabel.pipeline.run import run
from beamlabel.transforms.hub.resolve import resolve_module
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.module.compile import CompileOptions, compiled
from beamlabel.transforms.module.head_artifact import head_artifact
from beamlabel.transforms.own_module.description import read_description
from support.jobs import relabel


@pytest.fixture
def edited(labeled, tmp_path):
    """Copies the first night with a changed manifest."""

    def copy(change, name="earlier"):
        target = tmp_path / name / "out"
        shutil.copytree(labeled.parquet.output, target)
        path = target / "_MANIFEST.json"
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))
        return target

    return copy


def metadata(**values):
    """Changes entries of the metadata; None removes one."""

    def change(manifest):
        for name, value in values.items():
            manifest["metadata"].pop(f"beamlabel.{name}", None)
            if value is not None:
                manifest["metadata"][f"beamlabel.{name}"] = value

    return change


def earlier_output(name):
    """The manifest of an earlier version, from a run that named its output."""

    def change(manifest):
        metadata(features_id=None)(manifest)
        manifest["options"]["features_output"] = name

    return change


def preprocessing(tells_features=False, **values):
    def change(manifest):
        told = json.loads(manifest["metadata"]["beamlabel.preprocessing"])
        manifest["metadata"]["beamlabel.preprocessing"] = json.dumps({**told, **values})
        if not tells_features:
            manifest["metadata"].pop("beamlabel.features_id")

    return change


def refused(capsys, tmp_path, outputs, module, *arguments):
    """The message of a refusal; checks that no file is written."""
    outputs = outputs if isinstance(outputs, list) else [outputs]
    job = relabel(tmp_path / "refused", *outputs, *arguments, module=module)
    assert job.code == 2
    assert not (job.output / "_MANIFEST.json").exists()
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (metadata(embedding_dim=None), "--no_embeddings"),
        (metadata(schema_version="1"), "beamlabel compact"),
        (metadata(preprocessing=None), "preprocessing"),
        (metadata(features_id="0" * 64), "another module"),
        # From an earlier version of beamlabel and another module than the base.
        (metadata(features_id=None, module_fingerprint="0" * 64), "another module"),
        # From an earlier version, the base, and another of its outputs.
        (earlier_output("default"), "which output"),
        (preprocessing(height=16), "16x32"),
        (preprocessing(input_range=[-1.0, 1.0]), "-1.0"),
        (preprocessing(normalize_embeddings=True), "--normalize_embeddings"),
        (metadata(embedding_dim="7"), "features of"),
    ],
)
def test_outputs_that_do_not_fit(change, told, edited, modules, capsys, tmp_path):
    text = refused(capsys, tmp_path, edited(change), modules.own)
    assert told in text
    assert "OUTPUT" in text or "--module" in text


def test_an_earlier_versions_output_that_tells_which_output_it_is(edited, modules, tmp_path):
    change = earlier_output("image_feature_vector")
    assert relabel(tmp_path / "out", edited(change), module=modules.own).code == 0


def test_outputs_of_two_kinds(edited, labeled, modules, capsys, tmp_path):
    other = edited(preprocessing(crop=0.5))
    text = refused(capsys, tmp_path, [labeled.parquet.output, other], modules.own)
    assert "crop is None and 0.5" in text or "crop is 0.5 and None" in text
    assert "crop" in refused(capsys, tmp_path, other, modules.own)
    other = edited(metadata(features_id="1" * 64), "b")
    assert "features_id" in refused(capsys, tmp_path, [labeled.parquet.output, other], modules.own)


def test_a_module_that_beamlabel_train_did_not_write(labeled, modules, capsys, tmp_path):
    assert "beamlabel train" in refused(capsys, tmp_path, labeled.parquet.output, modules.base)


def test_a_head_that_differs_from_the_signature(modules, tmp_path):
    """As if the description omitted that features are normalized."""
    resolved = resolve_module(modules.normalizing, tmp_path)
    artifact = compiled(resolved, CompileOptions(), tmp_path)
    description = read_description(resolved.path)
    wrong = dataclasses.replace(description, normalizes=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("beamlabel.transforms.module.head_artifact.read_description", lambda _: wrong)
        with pytest.raises(ModuleError, match="changed its logits"):
            head_artifact(resolved, artifact, tmp_path, precision="float32", normalized=False)


def test_a_shard_that_is_gone_or_has_another_size(edited, modules, capsys, tmp_path):
    for number, spoil in enumerate((lambda path: path.unlink(), lambda path: path.write_bytes(b"PAR1"))):
        output = edited(lambda manifest: None, str(number))
        spoil(sorted(output.glob("part-*.parquet"))[0])
        assert "beamlabel verify" in refused(capsys, tmp_path, output, modules.own)


@pytest.mark.parametrize("place", ["dt=1", "dt=3", "."])
def test_an_output_among_the_inputs(place, labeled, modules, capsys):
    job = relabel(labeled.nights / place, labeled.nights, module=modules.own)
    assert job.code == 2
    assert "--output" in capsys.readouterr().err


def test_nothing_is_there(modules, capsys, tmp_path):
    assert "no published output" in refused(capsys, tmp_path, tmp_path / "nothing", modules.own)


@pytest.mark.parametrize(
    "option", ["--crop", "--input", "--skip_labeled", "--engine", "--normalize_embeddings"]
)
def test_options_of_the_job_that_make_no_sense(option, tmp_path):
    with pytest.raises(UsageError, match=option):
        parse([str(tmp_path), "--module", "m", "--output", "out", option, "0.5"])


def test_runner_options_are_left_for_the_runner(tmp_path):
    argv = ["a/", "b/", "--module", "m", "--output", "out", "--runner", "FlinkRunner", "--flink_master=x"]
    options, rest = parse(argv)
    assert options.inputs.input == ("a/", "b/")
    assert rest == ["--runner", "FlinkRunner", "--flink_master=x"]


def test_its_failures_are_retried_only_with_the_images_named(edited, modules, capsys, tmp_path):
    def change(manifest):
        manifest["options"]["input_format"] = "embeddings"

    argv = [
        "--retry_failures",
        str(edited(change)),
        "--module",
        modules.base,
        "--output",
        str(tmp_path / "out"),
    ]
    assert run(*parse_job(argv)) == 2
    assert "--input" in capsys.readouterr().err
