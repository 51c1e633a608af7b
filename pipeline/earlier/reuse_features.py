"""Labels rows of earlier outputs with the head of an own module, so that their images need not be fetched."""

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
    """The features that a run would compute and that the module's head can take from earlier rows.

    Args:
      resolved: the module's files.
      derived: the module and its settings.

    Returns:
      None for a module that ``beamlabel train`` did not write, or if the run scales embeddings to length 1 and the
      head was not trained on such embeddings.
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
    """The module's compiled head; None, after a warning, if its results differ from the module's."""
    # Called only if there are rows for it, since the process may have to load the module.
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
        _LOGGER.warning("Fetching images instead of using the features of earlier outputs: %s", error)
        return None
