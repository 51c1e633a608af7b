"""Compiles the head of ``--module`` alone, for rows whose embeddings come from its base."""

from __future__ import annotations

import dataclasses

from beamlabel.pipeline.earlier.features import WantedFeatures
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.earlier_features import EarlierFeatures, EarlierOutput
from beamlabel.pipeline.job.prepare_module import prepare_artifact, resolve_chosen
from beamlabel.pipeline.options.job_options import InferenceOptions, ModuleOptions
from beamlabel.transforms.inference.artifact import Artifact, ModelSpec
from beamlabel.transforms.module.head_artifact import require_description
from beamlabel.transforms.module_process.prepare import compiled_head
from beamlabel.transforms.module_process.process import ModuleProcess
from beamlabel.transforms.output_spec import features_id_of, quantization_of
from beamlabel.transforms.rows import metadata_keys
from beamlabel.transforms.storage.host_cache import cache_dir

_INSTEAD = "train a head on these outputs, or label the images again without relabel"


def prepare_head(
    module: ModuleOptions, inference: InferenceOptions, features: EarlierFeatures, process: ModuleProcess
) -> tuple[ModuleOptions, Artifact]:
    """Compiles a module and its head, and checks that the head fits these features.

    Args:
      module, inference: the options.
      features: of the rows that are labeled again.
      process: loads the module, unless the cache holds all results.

    Returns:
      The options with which the images would be labeled again, and the head's artifact, whose spec is the module's.

    Raises:
      UsageError: beamlabel train did not write the module, or it has another base or takes other embeddings.
    """
    resolved = resolve_chosen(module, process=process)
    preprocessing = features.preprocessing
    normalized = bool(preprocessing.get("normalize_embeddings"))
    try:
        require_description(resolved)
        artifact = prepare_artifact(module, inference, resolved=resolved, process=process)
        head = compiled_head(
            resolved,
            artifact,
            cache_dir(),
            process,
            precision=str(preprocessing["precision"]),
            normalized=normalized,
            quantization=quantization_of(preprocessing),
        )
    except (ValueError, RuntimeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"--module: {error}") from error
    _check_images(module.module, head.spec, features)
    _check_base(module.module, head.spec, features)
    _check_decoding(module.module, head.spec, features)
    wishes = dataclasses.replace(
        module,
        crop=preprocessing["crop"],
        color_profile=preprocessing["color_profile"],
        # Without an embedding column there is nothing to normalize.
        normalize_embeddings=normalized and not module.no_embeddings,
    )
    return wishes, head


def _check_images(handle: str, spec: ModelSpec, features: EarlierFeatures) -> None:
    """Refuses features of images of another size or range."""
    before = features.preprocessing
    for name, ours, theirs in (
        ("images of", f"{spec.height}x{spec.width}", f"{before['height']}x{before['width']}"),
        ("pixels in", list(spec.input_range), list(before["input_range"])),
        ("features of", spec.embedding_dim, features.dimension),
    ):
        if ours != theirs:
            raise UsageError(
                f"--module {handle} takes {name} {ours}, but the embeddings in {features.outputs[0].directory} are "
                f"those of {name} {theirs}; {_INSTEAD}"
            )


def _check_base(handle: str, spec: ModelSpec, features: EarlierFeatures) -> None:
    """Refuses features of another base."""
    wanted = WantedFeatures(
        features_id_of(features.preprocessing, spec.features_of), spec.features_of, features.dimension
    )
    for output in features.outputs:
        metadata = output.manifest["metadata"]
        if not wanted.are_of(metadata, output.manifest):
            base = spec.features_of.partition(":")[0]
            raise UsageError(f"--module {handle}: {_difference(output, base)}; {_INSTEAD}")


def _difference(output: EarlierOutput, base: str) -> str:
    metadata = output.manifest["metadata"]
    fingerprint = str(metadata.get(metadata_keys.MODULE_FINGERPRINT))
    if metadata.get(metadata_keys.FEATURES_ID) is None and fingerprint == base:
        return (
            f"{output.directory} was written by an earlier version of beamlabel, and does not record from which output "
            "of the module its embeddings come"
        )
    return (
        f"its base is the module {base[:12]}…, but the embeddings in {output.directory} come from another module "
        f"({metadata.get(metadata_keys.MODULE_HANDLE)}, {fingerprint[:12]}…) or from another output of it"
    )


def _check_decoding(handle: str, spec: ModelSpec, features: EarlierFeatures) -> None:
    """Refuses features of images that were decoded differently than the training images of the head."""
    for name, ours in (("crop", spec.crop), ("color_profile", spec.color_profile)):
        theirs = features.preprocessing[name]
        if ours != theirs:
            raise UsageError(
                f"--module {handle}: its head was trained on images decoded with {name} {ours}, but those of "
                f"{features.outputs[0].directory} were decoded with {name} {theirs}; {_INSTEAD}"
            )
