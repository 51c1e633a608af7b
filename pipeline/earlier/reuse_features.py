"""Rows of earlier outputs that an own module's head labels anew: their images need not be fetched."""

from __future__ import annotations

from beamlabel.pipeline.earlier.features import WantedFeatures
from beamlabel.transforms.derive import Derived
from beamlabel.transforms.hub.resolve import ResolvedModule
from beamlabel.transforms.inference.artifact import Artifact
from beamlabel.transforms.module_process.prepare import compiled_head
from beamlabel.transforms.module_process.process import ModuleProcess
from beamlabel.transforms.output_spec import features_id_of, preprocessing_of
from beamlabel.transforms.own_module.description import read_description
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage.host_cache import cache_dir

_LOGGER = get_logger("beamlabel")


def wanted_features(resolved: ResolvedModule, derived: Derived) -> WantedFeatures | None:
    """The features that a run would compute, and that the module's head can take from earlier rows.

    Args:
      resolved: the module's files.
      derived: the module, and how it is used.

    Returns:
      None for a module that ``beamlabel train`` did not write; and if embeddings of length 1 are asked for, of which
      the head knows nothing.
    """
    spec = derived.spec
    if spec.embedding_dim is None or spec.num_classes is None:
        return None
    description = read_description(resolved.path)
    if description is None or (derived.predict.normalize_embeddings and not description.normalizes):
        return None
    of = description.features_of or spec.features_of
    return WantedFeatures(features_id_of(preprocessing_of(derived), of), of, spec.embedding_dim)


def head_of(
    resolved: ResolvedModule, artifact: Artifact, derived: Derived, process: ModuleProcess
) -> Artifact | None:
    """The module's head, compiled; None, and a warning, if it is not what the module computes."""
    # Not before there are rows for it: the process may have to load the module.
    normalized = derived.predict.normalize_embeddings
    try:
        return compiled_head(
            resolved,
            artifact,
            cache_dir(),
            process,
            precision=derived.spec.precision,
            normalized=normalized,
            quantization=derived.spec.quantization,
        )
    except (ValueError, RuntimeError) as error:
        _LOGGER.warning("Features of earlier outputs are not used, and their images are fetched: %s", error)
        return None
