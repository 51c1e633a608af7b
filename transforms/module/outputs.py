"""A module's signatures, with their inputs and outputs, and the choice of those that take images.

Signatures and keys are named by the module. Nothing here imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from beamlabel.transforms.inference.artifact import ModuleError

Shape = tuple["int | None", ...]

# Integers and strings are neither scores nor features.
_FLOATS = ("float16", "bfloat16", "float32", "float64", "half")
_NUMBERS = (*_FLOATS, "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
_CHANNELS = 3


class OptionError(ModuleError):
    """An option must be given before the module can be used; the message names it."""


@dataclass(frozen=True)
class Output:
    """One output tensor of a signature.

    ``shape`` is None if even its rank is unknown; ``dtype`` is TensorFlow's name of it.
    """

    signature: str
    key: str
    shape: Shape | None
    dtype: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """Its name as options spell it."""
        return f"{self.signature}:{self.key}"

    @property
    def is_float(self) -> bool:
        """Whether it may be scores or features."""
        return self.dtype in _FLOATS


@dataclass(frozen=True)
class Input:
    """One input tensor of a signature; ``dtype`` is TensorFlow's name of it."""

    key: str
    shape: Shape | None
    dtype: str


@dataclass(frozen=True)
class ImageInput:
    """The input for the images.

    Attributes:
      key, dtype: see ``Input``.
      batch: the batch size that it takes; None: any.
      height, width: pixels; None: any size.
      channels_first: whether it takes [batch, 3, height, width], not [batch, height, width, 3].
    """

    key: str
    dtype: str
    batch: int | None = None
    height: int | None = None
    width: int | None = None
    channels_first: bool = False


@dataclass(frozen=True)
class Signature:
    """A function of the module."""

    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]

    def image_input(self) -> ImageInput:
        """The input for the images.

        The channels come first if the second dimension is 3 and the last is not.

        Raises:
          ModuleError: it is not the only input, or does not take images of three channels.
        """
        found = _image_input(self.inputs[0]) if len(self.inputs) == 1 else None
        if found is None:
            listing = ", ".join(f"{one.key} {one.dtype}{format_shape(one.shape)}" for one in self.inputs)
            raise ModuleError(
                f"signature {self.name} takes {listing or 'nothing'}; expected one input [?, height, width, 3]"
            )
        return found


class ModuleSource(Protocol):
    """A loaded module of any format.

    Attributes:
      kind: the format's name.
      signatures: all signatures by name, in order of preference.
      groups: the names of those that are examined unless the user names one. Those of one group have the same rank.
      one_graph: whether outputs of different signatures can be computed in one pass.
    """

    kind: str
    signatures: Mapping[str, Signature]
    groups: Sequence[Sequence[str]]
    one_graph: bool

    def function_of(self, outputs: Sequence[Output]) -> Callable[[Any], Sequence[Any]]:
        """A function from a tensor of the image input's shape and dtype to these tensors."""


def find_output(option: str, text: str, signatures: Mapping[str, Signature]) -> Output:
    """The output that the user named as ``SIGNATURE:KEY``, ``SIGNATURE`` or ``KEY``, tried in this order.

    A bare signature means its key ``default``, or its only key. A bare key means the first signature that has it;
    signatures that take images come first.

    Raises:
      ModuleError: there is no such output; the message lists all outputs.
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
        ordered = [*fitting(signatures).values(), *signatures.values()]
        found = [one for signature in ordered for one in signature.outputs if one.key == text]
    if not found:
        raise ModuleError(f"{option} {text}: no such output; the module has {describe(signatures)}")
    return found[0]


def fitting(signatures: Mapping[str, Signature]) -> dict[str, Signature]:
    """The signatures that take images."""
    found = {}
    for name, signature in signatures.items():
        try:
            signature.image_input()
        except ModuleError:
            continue
        found[name] = signature
    return found


def misfits(signatures: Mapping[str, Signature]) -> str:
    """The reasons why the other signatures do not take images."""
    reasons = []
    for signature in signatures.values():
        try:
            signature.image_input()
        except ModuleError as error:
            reasons.append(str(error))
    return "; ".join(reasons)


def describe(signatures: Mapping[str, Signature]) -> str:
    """Lists all outputs for an error message."""
    texts = []
    for signature in signatures.values():
        outputs = ", ".join(_described(one) for one in signature.outputs)
        texts.append(f"{signature.name}: {outputs or 'nothing'}")
    return "; ".join(texts) or "no signatures"


def format_shape(shape: Shape | None) -> str:
    """``[?, 160, 160, 3]``."""
    return "[…]" if shape is None else f"[{', '.join('?' if side is None else str(side) for side in shape)}]"


def _described(output: Output) -> str:
    kind = f"{output.dtype} " if output.dtype and not output.is_float else ""
    return f"{output.key} {kind}{format_shape(output.shape)}"


def _image_input(one: Input) -> ImageInput | None:
    if one.dtype not in _NUMBERS:
        return None
    if one.shape is None:
        return ImageInput(one.key, one.dtype)
    if len(one.shape) != 4:
        return None
    batch, second, third, last = one.shape
    if second == _CHANNELS != last:
        return ImageInput(one.key, one.dtype, batch, third, last, channels_first=True)
    if last in (_CHANNELS, None):
        return ImageInput(one.key, one.dtype, batch, second, third)
    return None
