"""Combines a module with the user's options: size, crop, scores, top k and names for labeling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from beamlabel.transforms.decoding.decode import DECODER_VERSION, DecodeOptions
from beamlabel.transforms.decoding.picture.options import DEFAULT_DECODE_DEADLINE
from beamlabel.transforms.inference.artifact import Artifact, ModelSpec
from beamlabel.transforms.inference.options import AUTO, PredictOptions, WishError, describe_scores, fitted
from beamlabel.transforms.module.class_names import load_class_names
from beamlabel.transforms.secrets.logs import get_logger

_LOGGER = get_logger(__name__)
_MAX_PIXELS = 100_000_000
_COLOR_PROFILE = "convert"


@dataclass(frozen=True)
class Derived:
    """How to decode images and how to make predictions from them.

    Attributes:
      spec: the spec of the module.
      decode, predict: the options that follow from the spec and the user's options.
      decoder: the version of the decoding; an earlier version if the features come from earlier rows.
    """

    spec: ModelSpec
    decode: DecodeOptions
    predict: PredictOptions
    decoder: Any = DECODER_VERSION


def derive(
    artifact: Artifact,
    *,
    top_k: int | None = None,
    scores: str = AUTO,
    class_names: Sequence[str] | str | None = AUTO,
    embeddings: bool = True,
    normalize_embeddings: bool = False,
    crop: float | None = None,
    max_pixels: int = _MAX_PIXELS,
    decode_deadline: float = DEFAULT_DECODE_DEADLINE,
    color_profile: str = AUTO,
    batch_size: int = 128,
    worker_threads: int | None = None,
    keep_pixels: bool = False,
) -> Derived:
    """Derives the options for a module; both the command and ``LabelImages`` use this function.

    Args:
      artifact: the compiled module.
      top_k, scores, embeddings, normalize_embeddings, batch_size, worker_threads, keep_pixels: see
        ``PredictOptions``.
      class_names: a name for each class; a file with one name per line; None or ``"none"`` for no names; ``"auto"``:
        the names of an own module, else ImageNet's for 1000 and 1001 classes.
      crop, max_pixels, decode_deadline, color_profile: see ``DecodeOptions``. A ``crop`` of None and a
        ``color_profile`` of ``"auto"`` mean those that an own module's head was trained with, else the whole image and
        ``"convert"``.

    Raises:
      WishError: the module does not allow a value, such as another crop than an own module's; the error names it.
      ValueError: no module allows a value.
      OSError: the file of names cannot be read.
    """
    spec = artifact.spec
    open_names = class_names == AUTO if isinstance(class_names, str) else False
    wishes = PredictOptions(
        artifact_path=str(artifact.path),
        artifact_sha256=artifact.sha256,
        top_k=top_k,
        scores=scores,
        class_names=AUTO if open_names else _names(class_names, spec),
        embeddings=embeddings,
        normalize_embeddings=normalize_embeddings,
        batch_size=batch_size,
        worker_threads=worker_threads,
        keep_pixels=keep_pixels,
    )
    decode = DecodeOptions(
        height=spec.height,
        width=spec.width,
        crop=_crop(crop, spec),
        max_pixels=max_pixels,
        color_profile=_color_profile(color_profile, spec),
        decode_deadline=decode_deadline,
    )
    return Derived(spec, decode, fit(wishes, spec))


def _crop(given: float | None, spec: ModelSpec) -> float | None:
    # Only an own module states how its images were decoded, and it always names a color profile.
    if given is None or spec.color_profile is None or given == spec.crop:
        return spec.crop if given is None else given
    trained = "the whole image" if spec.crop is None else f"a crop of {spec.crop}"
    raise WishError("crop", f" {given}: the module's head was trained on {trained}; leave the option out")


def _color_profile(given: str, spec: ModelSpec) -> str:
    if given == AUTO or spec.color_profile in (None, given):
        return (spec.color_profile or _COLOR_PROFILE) if given == AUTO else given
    raise WishError(
        "color_profile",
        f" {given}: the module's head was trained with {spec.color_profile}; leave the option out",
    )


def fit(options: PredictOptions, spec: ModelSpec) -> PredictOptions:
    """The options with nothing left open; logs how scores are made and why.

    Raises:
      WishError: the module does not allow a value.
    """
    names = spec.class_names or load_class_names(None, spec.num_classes)
    whole = fitted(options, spec, names)
    if whole.top_k:
        _LOGGER.info("%s", describe_scores(spec, whole.scores, asked=options.scores != AUTO))
    return whole


def _names(given: Sequence[str] | str | None, spec: ModelSpec) -> tuple[str, ...] | None:
    if given is None:
        return None
    if not isinstance(given, str):
        return tuple(given)
    try:
        return load_class_names(given, spec.num_classes)
    except ValueError as error:
        raise WishError("class_names", f" {given!r}: {error}") from error
