"""What this run would do with an image: the measure for what earlier runs did with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from beamlabel.pipeline.earlier.chosen_outputs import ChosenOutputs
from beamlabel.pipeline.earlier.features import WantedFeatures
from beamlabel.transforms.records import Reason
from beamlabel.transforms.rows.schema import FEATURES_ID, PREPROCESSING_ID, OutputSpec

# What the same bytes fail for again, if they are decoded alike.
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
# What decides whether bytes can be decoded, beside the preprocessing.
_DECODERS = ("beamlabel", "opencv-python-headless", "pillow", "simplejpeg")


def tried_with(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """``versions``, ``metadata`` and ``options`` by which the failures of an output were tried.

    Those of a compacted output are of the runs that it is made of, and not of the compaction.
    """
    compacted: Mapping[str, Any] = manifest.get("compacted", {})
    found: Mapping[str, Any] = compacted.get("tried_with", manifest)
    return found


@dataclass(frozen=True)
class NamedInput:
    """How a run names its input.

    Attributes:
      patterns: absolute.
      options: the other options that decide what these name, each with its value and its default, as they stand in a
        manifest.
      base_dir: of relative references, absolute; None if all inputs are listings, which have none.
    """

    patterns: frozenset[str]
    options: Mapping[str, tuple[object, object]]
    base_dir: str | None = None


@dataclass(frozen=True)
class Wanted:
    """This run.

    Attributes:
      spec: of the rows that are asked for.
      output: where they go; rows that are there do not count, since they are replaced.
      changed: whether an image of another content is labeled again.
      known_failures: whether what fails again is skipped.
      tombstones: whether images that are gone are told.
      named: how it names its input.
      max_bytes, max_pixels: that an image may have.
      versions: of the packages that are installed.
      outputs: of the module that are taken.
      features: that this run would compute, if earlier rows with them can be labeled anew by the module's head; None
        if they cannot.
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
        """Whether the rows of a data file are by the outputs of the module that this run would take.

        Args:
          metadata: of the file.
          manifest: of its run; None if there is none: then only the features tell.
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
        """The reasons for which this run would fail again what the run of a manifest failed, if it has not changed.

        There are none if another version or other preprocessing might do better. Those of a limit are among them only
        if it is not higher now.
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
        """Whether all images of the run of a manifest were named by what is this run's input, too.

        Its patterns are this run's or some of them, and all other options of the input are the same. For an image of
        such a run that the input does not name there is only one explanation: it was taken out of it.
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
