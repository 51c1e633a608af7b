"""Which of a module's outputs are its logits and its features.

Signatures and keys are a module's own names. What the user names is taken; else it is decided by

1. the signature, in a TF1 Hub module: ``image_classification:default`` are logits and
   ``image_feature_vector:default`` features (the hub's common signatures for images);
2. the output's key: ``logits``, ``predictions``, ``probabilities``… or ``feature_vector``, ``embedding``…;
3. the handle, where there is one output: its last part holds ``classification`` or ``feature_vector``;
4. the size: 1000 and 1001 are ImageNet's classes;
5. the values: rows within [0, 1] that sum to 1 are a classifier's.

What none of these tells is an error that asks, never a guess. Nothing here imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from beamlabel.transforms.inference.artifact import ModuleError

Shape = tuple["int | None", ...]

_LOGITS_WORDS = ("logit", "prediction", "prob", "score", "softmax", "sigmoid")
_FEATURES_WORDS = ("feature", "embedding", "bottleneck", "pool")
_IMAGENET_SIZES = (1000, 1001)
NONE = "none"


@dataclass(frozen=True)
class Output:
    """One tensor that a signature gives.

    ``shape`` is None where even its rank is unknown; ``dtype`` is TensorFlow's name of it.
    """

    signature: str
    key: str
    shape: Shape | None
    dtype: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """As the options spell it."""
        return f"{self.signature}:{self.key}"


@dataclass(frozen=True)
class Input:
    """One tensor that a signature takes; ``dtype`` is TensorFlow's name of it."""

    key: str
    shape: Shape | None
    dtype: str


@dataclass(frozen=True)
class Signature:
    """A function of the module."""

    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]

    def image_input(self) -> Input:
        """The input for the images.

        Raises:
          ModuleError: it is not the only input, or not [batch, height, width, 3] of any batch.
        """
        listing = ", ".join(f"{one.key} {one.dtype}{format_shape(one.shape)}" for one in self.inputs)
        shape = self.inputs[0].shape if len(self.inputs) == 1 else ()
        if shape is not None and (len(shape) != 4 or shape[0] is not None or shape[3] not in (3, None)):
            raise ModuleError(
                f"signature {self.name} takes {listing or 'nothing'}; expected one input [?, height, width, 3]"
            )
        return self.inputs[0]


class ModuleSource(Protocol):
    """A loaded module, whatever its format.

    Attributes:
      kind: the format's name.
      signatures: by name, those that are looked at first, first.
      one_graph: whether outputs of different signatures can be fetched in one pass.
    """

    kind: str
    signatures: Mapping[str, Signature]
    one_graph: bool

    def fetch(self, outputs: Sequence[Output]) -> Callable[[Any], Sequence[Any]]:
        """A function of a tensor [N, H, W, 3], of the input's dtype, that gives these tensors."""


@dataclass(frozen=True)
class Choice:
    """What was chosen; at least one of the two is there."""

    logits: Output | None
    features: Output | None

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Those that are there, logits first."""
        return tuple(one for one in (self.logits, self.features) if one is not None)


def find_output(option: str, text: str, signatures: Mapping[str, Signature]) -> Output:
    """The output that the user named as ``SIGNATURE:KEY``, ``SIGNATURE`` or ``KEY``, tried in this order.

    A signature alone means its key ``default``, or its only one. A key alone means the first signature
    that has it.

    Raises:
      ModuleError: there is none; the message lists all that there are.
    """
    name, colon, key = text.partition(":")
    if colon and name in signatures:
        found = [one for one in signatures[name].outputs if one.key == key]
    elif text in signatures:
        outputs = signatures[text].outputs
        found = [one for one in outputs if one.key == "default"] or (
            list(outputs) if len(outputs) == 1 else []
        )
    else:
        found = [one for signature in signatures.values() for one in signature.outputs if one.key == text]
    if not found:
        raise ModuleError(f"{option} {text}: no such output; the module has {describe(signatures)}")
    return found[0]


def choose_outputs(
    source: ModuleSource,
    *,
    handle: str,
    logits_output: str | None,
    features_output: str | None,
    is_probabilities: Callable[[Output], bool],
) -> Choice:
    """Applies the rules above to what the user left open.

    Args:
      source: the module.
      handle: what the user named the module.
      logits_output, features_output: what the user named, ``"none"`` to leave it out, or None.
      is_probabilities: tries an output on images (rule 5).

    Raises:
      ModuleError: a name that is not there, or nothing that can be told for certain.
    """
    signatures = source.signatures
    logits = _named("--logits_output", logits_output, signatures)
    features = _named("--features_output", features_output, signatures)
    if logits_output is None or features_output is None:
        named = [one for one in (logits, features) if one is not None]
        found = _by_signature(source) or _by_rules(source, named, handle, is_probabilities)
        logits = found.logits if logits_output is None and found.logits not in named else logits
        features = found.features if features_output is None and found.features not in named else features
    choice = Choice(logits, features)
    if not choice.outputs:
        raise ModuleError(f"no logits and no features are left; the module has {describe(signatures)}")
    if not source.one_graph and len({one.signature for one in choice.outputs}) > 1:
        names = " and ".join(one.name for one in choice.outputs)
        raise ModuleError(
            f"{names} would run the network twice; name outputs of one signature, or leave one out with "
            f"'{NONE}'; the module has {describe(signatures)}"
        )
    return choice


def describe(signatures: Mapping[str, Signature]) -> str:
    """All outputs, for an error message."""
    texts = []
    for signature in signatures.values():
        outputs = ", ".join(f"{one.key} {format_shape(one.shape)}" for one in signature.outputs)
        texts.append(f"{signature.name}: {outputs or 'nothing'}")
    return "; ".join(texts) or "no signatures"


def format_shape(shape: Shape | None) -> str:
    """``[?, 160, 160, 3]``."""
    return "[…]" if shape is None else f"[{', '.join('?' if side is None else str(side) for side in shape)}]"


def _named(option: str, text: str | None, signatures: Mapping[str, Signature]) -> Output | None:
    return None if text is None or text == NONE else find_output(option, text, signatures)


def _by_signature(source: ModuleSource) -> Choice | None:
    """Rule 1."""

    def default(name: str) -> Output | None:
        outputs = source.signatures[name].outputs if name in source.signatures else ()
        return next((one for one in outputs if one.key == "default"), None)

    if not source.one_graph:
        return None
    choice = Choice(default("image_classification"), default("image_feature_vector"))
    return choice if choice.outputs else None


def _by_rules(
    source: ModuleSource, named: list[Output], handle: str, is_probabilities: Callable[[Output], bool]
) -> Choice:
    """Rules 2 to 5, for the vectors of the first signature, or of the one that the user's output is of.

    A TF1 signature's own result is ``default``; its other keys are endpoints inside the network.
    """
    first = next(iter(source.signatures), "")
    name = named[0].signature if named and not source.one_graph else first
    outputs = source.signatures[name].outputs if name else ()
    outputs = tuple(one for one in outputs if one.key == "default") or outputs
    candidates = [one for one in outputs if one not in named and _is_vector(one.shape)]
    hint = _last_part(handle) if len(outputs) == 1 else ""
    roles = {one: _role(one, hint) or ("logits" if is_probabilities(one) else None) for one in candidates}
    found = {role: [one for one in candidates if roles[one] == role] for role in ("logits", "features")}
    crowded = any(len(ones) > 1 for ones in found.values())
    if crowded or not (named or any(found.values())):
        raise ModuleError(
            "cannot tell its logits from its features; name them with --logits_output or --features_output "
            f"(SIGNATURE:KEY); the module has {describe(source.signatures)}"
        )
    return Choice(*(ones[0] if ones else None for ones in found.values()))


def _role(output: Output, hint: str) -> str | None:
    """Rules 2, 3 and 4."""
    key = output.key.lower()
    if any(word in key for word in _FEATURES_WORDS):
        return "features"
    if any(word in key for word in _LOGITS_WORDS):
        return "logits"
    if "feature" in hint:
        return "features"
    if "classif" in hint or (output.shape is not None and output.shape[-1] in _IMAGENET_SIZES):
        return "logits"
    return None


def _is_vector(shape: Shape | None) -> bool:
    return shape is None or len(shape) == 2 or (len(shape) == 4 and shape[1] == shape[2] == 1)


def _last_part(handle: str) -> str:
    """``classification`` of ``…/mobilenet_v2_100_224/classification/5``: the last part but the version."""
    parts = [part for part in urlsplit(handle).path.lower().split("/") if part and not part.isdecimal()]
    return parts[-1] if parts else ""
