"""Chooses the outputs of a module that are its logits and its features.

Outputs that the user names are taken. Otherwise these rules decide:

1. the signature, in a TF1 Hub module: ``image_classification:default`` are logits and
   ``image_feature_vector:default`` features (the hub's common signatures for images);
2. the output's key: ``logits``, ``predictions``, ``probabilities``… or ``feature_vector``, ``embedding``…;
3. the handle, if there is one output: its last part contains ``classification`` or ``feature_vector``;
4. the size: 1000 and 1001 are ImageNet's classes;
5. the values and the graph: an output that ``score_kind`` finds to be scores belongs to a classifier.

All signatures that take images are examined in the source's order, until one has such an output and does not fail. If
no rule decides, an error asks the user; nothing is guessed. Nothing here imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

import numpy as np

from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.top_k import scores_of
from beamlabel.transforms.module.outputs import (
    ModuleSource,
    OptionError,
    Output,
    Shape,
    Signature,
    describe,
    find_output,
    fitting,
    misfits,
)

_LOGITS_WORDS = ("logit", "prediction", "prob", "score", "softmax", "sigmoid", "logistic")
_FEATURES_WORDS = ("feature", "embedding", "bottleneck", "pool")
# A detector's boxes with scores: their rows are not rows of classes.
_DETECTOR_WORDS = ("detection", "box", "anchor", "num_detections")
_IMAGENET_SIZES = (1000, 1001)
NONE = "none"
_LOGITS, _FEATURES = "logits", "features"
# How close two outputs must be to count as equal.
_SAME = 1e-3


class Trial(Protocol):
    """A module that can be tried on images."""

    def values(self, outputs: Sequence[Output]) -> list[np.ndarray]:
        """The outputs of one pass over the probe images, each float32[N, D].

        Raises:
          OptionError: an option must be given first.
          ModuleError: the module fails, or an output is not a vector.
        """

    def is_scores(self, output: Output) -> bool:
        """Whether values and graph show that an output has a score for each class."""


@dataclass(frozen=True)
class Choice:
    """The chosen outputs; at least one of the two exists."""

    logits: Output | None
    features: Output | None

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The chosen outputs, logits first."""
        return tuple(one for one in (self.logits, self.features) if one is not None)


@dataclass(frozen=True)
class _Wishes:
    """The roles that the user left open, and hints to find them."""

    named: tuple[Output, ...]
    roles: tuple[str, ...]
    handle: str
    image_size: tuple[int, int] | None


class _CrowdedError(ModuleError):
    """More than one output has a role."""


def choose_outputs(
    source: ModuleSource,
    *,
    handle: str,
    logits_output: str | None,
    features_output: str | None,
    image_size: tuple[int, int] | None,
    trial: Trial,
) -> Choice:
    """Applies the rules above to the roles that the user left open.

    Args:
      source: the module.
      handle: the user's name for the module.
      logits_output, features_output: the output that the user named, ``"none"`` to leave it out, or None.
      image_size: (height, width), if the user gave it: signatures for another size come last.
      trial: tries outputs on images.

    Raises:
      ModuleError: a named output does not exist, or the rules do not decide.
    """
    signatures = source.signatures
    usable = _of_size(fitting(signatures), image_size)
    if not usable:
        raise ModuleError(f"none of its signatures takes a batch of images: {misfits(signatures)}")
    logits = _named("--logits_output", logits_output, signatures)
    features = _named("--features_output", features_output, signatures)
    if logits_output is None or features_output is None:
        named = tuple(one for one in (logits, features) if one is not None)
        roles = [(_LOGITS, logits_output), (_FEATURES, features_output)]
        wishes = _Wishes(named, tuple(role for role, text in roles if text is None), handle, image_size)
        found = _by_signature(source, usable) or _by_rules(source, usable, wishes, trial)
        logits = found.logits if logits_output is None and found.logits not in named else logits
        features = found.features if features_output is None and found.features not in named else features
    choice = Choice(logits, features)
    if not choice.outputs:
        raise ModuleError(f"neither logits nor features are left; the module has {describe(signatures)}")
    if not source.one_graph and len({one.signature for one in choice.outputs}) > 1:
        names = " and ".join(one.name for one in choice.outputs)
        raise ModuleError(
            f"{names} would run the network twice; name outputs of one signature, or leave one out with "
            f"'{NONE}'; the module has {describe(signatures)}"
        )
    return choice


def is_vector(shape: Shape | None, batch: int | None = None) -> bool:
    """Whether a result of this shape may be a vector per image; a batch of one may lack its batch dimension."""
    if shape is None or len(shape) == 2:
        return True
    if len(shape) == 1:
        return batch == 1 and shape != (1,)
    return len(shape) == 4 and (shape[1] == shape[2] == 1 or shape[2] == shape[3] == 1)


def _named(option: str, text: str | None, signatures: Mapping[str, Signature]) -> Output | None:
    if text is None or text == NONE:
        return None
    output = find_output(option, text, signatures)
    signatures[output.signature].image_input()
    if output.dtype and not output.is_float:
        raise ModuleError(
            f"{option} {text}: its dtype is {output.dtype}, but scores and features must be floats"
        )
    return output


def _of_size(usable: dict[str, Signature], size: tuple[int, int] | None) -> dict[str, Signature]:
    """The signatures for images of this size, if there are any; otherwise all."""
    if size is None:
        return usable
    inputs = {name: signature.image_input() for name, signature in usable.items()}
    return {
        name: usable[name]
        for name, one in inputs.items()
        if one.height in (None, size[0]) and one.width in (None, size[1])
    } or usable


def _by_signature(source: ModuleSource, usable: Mapping[str, Signature]) -> Choice | None:
    """Rule 1."""

    def default(name: str) -> Output | None:
        outputs = usable[name].outputs if name in usable else ()
        return next((one for one in outputs if one.key == "default" and one.is_float), None)

    if not source.one_graph:
        return None
    choice = Choice(default("image_classification"), default("image_feature_vector"))
    return choice if choice.outputs else None


def _by_rules(source: ModuleSource, usable: Mapping[str, Signature], wishes: _Wishes, trial: Trial) -> Choice:
    """Rules 2 to 5, for the vectors of the first signature that has any, or of the user's output's signature."""
    groups = source.groups
    if wishes.named and not source.one_graph:
        groups = [[wishes.named[0].signature]]
    failures: list[ModuleError] = []
    for group in groups:
        found: dict[str, Choice] = {}
        for name in (name for name in group if name in usable):
            try:
                choice = _of_signature(usable[name], wishes, trial)
                if choice.outputs and not wishes.named:
                    trial.values(choice.outputs)
            except _CrowdedError as error:
                raise _unclear(str(error), source, usable) from error
            except OptionError:
                raise
            except ModuleError as error:
                failures.append(error)
                continue
            if choice.outputs:
                found[name] = choice
        if len(found) > 1:
            _check_alike(source, usable, found, wishes)
        if found:
            return next(iter(found.values()))
    if wishes.named:
        return Choice(None, None)
    if failures:
        raise _unclear(str(failures[0]), source, usable) if len(usable) > 1 else failures[0]
    raise _unclear("cannot tell its logits from its features", source, usable)


def _of_signature(signature: Signature, wishes: _Wishes, trial: Trial) -> Choice:
    """The outputs of one signature by role. A TF1 signature's own result is ``default``; its other keys are endpoints
    inside the network."""
    batch = signature.image_input().batch
    outputs = tuple(one for one in signature.outputs if one.key == "default") or signature.outputs
    candidates = [
        one
        for one in outputs
        if one not in wishes.named and one.is_float and is_vector(one.shape, batch) and not _of_detector(one)
    ]
    hint = _last_part(wishes.handle) if sum(one.is_float for one in outputs) == 1 else ""
    roles = {
        one: _role(one, hint) or (_LOGITS if _LOGITS in wishes.roles and trial.is_scores(one) else None)
        for one in candidates
    }
    found = {role: [one for one in candidates if roles[one] == role] for role in wishes.roles}
    heads, features = found.get(_LOGITS, []), found.get(_FEATURES, [])
    if len(heads) > 1:
        heads = _same_head(heads, trial)
    for role, ones in ((_LOGITS, heads), (_FEATURES, features)):
        if len(ones) > 1:
            names = ", ".join(one.name for one in ones)
            raise _CrowdedError(f"cannot tell which of {names} are its {role}")
    return Choice(*(ones[0] if ones else None for ones in (heads, features)))


def _check_alike(
    source: ModuleSource, usable: Mapping[str, Signature], found: Mapping[str, Choice], wishes: _Wishes
) -> None:
    """Refuses several signatures of the same rank if none takes precedence.

    Traces of one function, ``NAME`` and ``NAME#2``, are equivalent unless they are for images of different sizes.
    """
    functions = {name.partition("#")[0] for name in found}
    if len(functions) > 1:
        raise _unclear(f"{' and '.join(found)} all take images, and none takes precedence", source, usable)
    inputs = [usable[name].image_input() for name in found]
    sizes = sorted({(one.height, one.width) for one in inputs if one.height and one.width})
    if len(sizes) > 1 and wishes.image_size is None:
        shown = " and ".join(f"{height}x{width}" for height, width in sizes)
        raise OptionError(f"{functions.pop()} takes images of {shown} (height x width); use --image_size")


def _same_head(heads: Sequence[Output], trial: Trial) -> list[Output]:
    """Reduces equivalent outputs, such as logits and their softmax, to the one computed from all others; else all."""
    values = dict(zip(heads, trial.values(heads), strict=True))
    last = [one for one in heads if all(_makes(values[other], values[one]) for other in heads)]
    return last[:1] or list(heads)


def _makes(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether ``b`` is ``a``, or computed from it: by softmax, by sigmoid, or as [1 - p, p]."""
    made = [a, scores_of(a, "sigmoid"), scores_of(a, "softmax") if a.shape[1] > 1 else a]
    if a.shape[1] == 1:
        made += [np.concatenate([1 - one, one], axis=1) for one in (a, made[1])]
    return any(one.shape == b.shape and bool(np.allclose(one, b, rtol=0, atol=_SAME)) for one in made)


def _unclear(why: str, source: ModuleSource, usable: Mapping[str, Signature]) -> ModuleError:
    others = misfits(source.signatures)
    return ModuleError(
        f"{why}; name them with --logits_output or --features_output (SIGNATURE:KEY); the module has "
        f"{describe(usable)}{f'; not for images: {others}' if others else ''}"
    )


def _role(output: Output, hint: str) -> str | None:
    """Rules 2, 3 and 4."""
    key = output.key.lower()
    if any(word in key for word in _FEATURES_WORDS):
        return _FEATURES
    if any(word in key for word in _LOGITS_WORDS):
        return _LOGITS
    if "feature" in hint:
        return _FEATURES
    if "classif" in hint or (output.shape is not None and output.shape[-1] in _IMAGENET_SIZES):
        return _LOGITS
    return None


def _of_detector(output: Output) -> bool:
    return any(word in output.key.lower() for word in _DETECTOR_WORDS)


def _last_part(handle: str) -> str:
    """The last part but the version: ``classification`` in ``…/mobilenet_v2_100_224/classification/5``."""
    parts = [part for part in urlsplit(handle).path.lower().split("/") if part and not part.isdecimal()]
    return parts[-1] if parts else ""
