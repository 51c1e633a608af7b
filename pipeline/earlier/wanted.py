"""The results that this run would produce, as the measure for the results of earlier runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from beamlabel.pipeline.earlier.chosen_outputs import ChosenOutputs
from beamlabel.pipeline.earlier.features import WantedFeatures
from beamlabel.transforms.records import Reason
from beamlabel.transforms.rows.metadata_keys import FEATURES_ID, PREPROCESSING_ID
from beamlabel.transforms.rows.schema import OutputSpec

# Reasons for which the same bytes fail again if decoded the same way.
LASTING = frozenset(
    reason.value
    for reason in (
        Reason.TRUNCATED,
        Reason.CORRUPT,
        Reason.NOT_AN_IMAGE,
        Reason.UNSUPPORTED_FORMAT,
        Reason.TOO_MANY_PIXELS,
        Reason.TOO_MANY_BYTES,
        Reason.EMPTY_FILE,
    )
)
# Packages that decide whether bytes can be decoded; the preprocessing matters as well.
_DECODERS = ("beamlabel", "opencv-python-headless", "pillow", "simplejpeg")


def tried_with(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """``versions``, ``metadata`` and ``options`` of the runs that produced the failures of an output.

    For a compacted output these are of the original runs, not of the compaction.
    """
    compacted: Mapping[str, Any] = manifest.get("compacted", {})
    found: Mapping[str, Any] = compacted.get("tried_with", manifest)
    return found


@dataclass(frozen=True)
class NamedInput:
    """The options by which a run names its input.

    Attributes:
      patterns: absolute patterns.
      options: other options that decide which images these name, each with its value and its default, as in a
        manifest.
      base_dir: absolute directory of relative references; None if all inputs are listings, which have none.
    """

    patterns: frozenset[str]
    options: Mapping[str, tuple[object, object]]
    base_dir: str | None = None


@dataclass(frozen=True)
class Wanted:
    """The results that this run would produce.

    Attributes:
      spec: specification of the rows.
      output: directory of the rows; rows already there do not count, since they are replaced.
      named: the options that name the input.
      max_bytes, max_pixels: limits of an image.
      versions: versions of the installed packages.
      changed: whether an image with other content is labeled again.
      known_failures: whether images that would fail again are skipped.
      tombstones: whether deleted images are recorded.
      outputs: the module outputs in use.
      features: the features that this run would compute, if the module's head can label earlier rows from them; None
        if not.
    """

    spec: OutputSpec
    output: str
    named: NamedInput
    max_bytes: int
    max_pixels: int
    versions: Mapping[str, str]
    changed: bool = False
    known_failures: bool = True
    tombstones: bool = False
    outputs: ChosenOutputs = field(default_factory=ChosenOutputs)
    features: WantedFeatures | None = None

    def takes_outputs_of(self, metadata: Mapping[str, str], manifest: Mapping[str, Any] | None) -> bool:
        """Whether the rows of a data file come from the module outputs that this run uses.

        Args:
          metadata: metadata of the file.
          manifest: manifest of its run; None if there is none: then only the features decide.
        """
        features_id = metadata.get(FEATURES_ID)
        if manifest is None:
            there = replace(self.outputs, features_id=features_id or self.outputs.features_id)
        else:
            there = replace(ChosenOutputs.of_run(manifest), features_id=features_id)
        spec = self.spec
        return self.outputs.agree(
            there, classes=spec.num_classes is not None, embeddings=spec.embedding_dim is not None
        )

    def fails_again(self, manifest: Mapping[str, Any]) -> frozenset[str]:
        """The reasons for which an image that failed in the run of a manifest would fail again, if unchanged.

        There are none if another version or other preprocessing might succeed. The reason of a limit is left out if
        the limit is higher now.
        """
        tried = tried_with(manifest)
        versions, options = tried.get("versions", {}), tried.get("options", {})
        alike = tried["metadata"].get(PREPROCESSING_ID) == self.spec.preprocessing_id
        if not alike or any(versions.get(name) != self.versions.get(name) for name in _DECODERS):
            return frozenset()
        higher = {
            Reason.TOO_MANY_BYTES.value: self.max_bytes > options.get("max_bytes", 0),
            Reason.TOO_MANY_PIXELS.value: self.max_pixels > options.get("max_pixels", 0),
        }
        return frozenset(reason for reason in LASTING if not higher.get(reason))

    def is_of_input(self, manifest: Mapping[str, Any] | None) -> bool:
        """Whether this run's input covers the whole input of a manifest's run.

        It does if that run's patterns are among this run's, and all other options of the input are the same. Then an
        image of that run that this run's input does not name must have been removed.

        """
        if manifest is None:
            return False
        there = manifest.get("options", {})
        patterns = set(there.get("input", ()))
        if not patterns or not patterns <= self.named.patterns:
            return False
        if self.named.base_dir not in (None, there.get("base_dir")):
            return False
        return all(there.get(name, default) == value for name, (value, default) in self.named.options.items())
