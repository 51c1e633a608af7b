"""Selects the variables to train: all, or those from a layer on."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.fine_tune.network import Network

_SHOWN = 40


def trained_from(network: Network, layer: str | None) -> list[bool]:
    """Whether to train each variable of a network.

    Args:
      network: the network; its variables are in the order of its layers.
      layer: the first layer to train: a scope of variables, such as ``expanded_conv_14`` or
        ``MobilenetV2/expanded_conv_14/project``; None: train all.

    Raises:
      UsageError: there is no such layer; the message lists the existing ones.
    """
    if layer is None:
        return list(network.trainable)
    prefix = _prefix(
        [name for name, is_trained in zip(network.names, network.trainable, strict=True) if is_trained]
    )
    wanted = layer.strip("/")
    for place, name in enumerate(network.names):
        inside = name.removeprefix(prefix)
        if network.trainable[place] and any(
            one == wanted or one.startswith(f"{wanted}/") for one in (name, inside)
        ):
            return [number >= place and is_trained for number, is_trained in enumerate(network.trainable)]
    blocks = blocks_of(network)
    close = difflib.get_close_matches(wanted, blocks, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    more = f" and {len(blocks) - _SHOWN} more" if len(blocks) > _SHOWN else ""
    raise UsageError(
        f"--fine_tune_from {layer!r}: the network has no such layer; {hint}its layers from first to last are "
        f"{', '.join(blocks[:_SHOWN])}{more}"
    )


def blocks_of(network: Network) -> list[str]:
    """The outermost scopes with trainable variables, from the first layer to the last."""
    names = [name for name, is_trained in zip(network.names, network.trainable, strict=True) if is_trained]
    prefix = _prefix(names)
    return list(dict.fromkeys(name.removeprefix(prefix).partition("/")[0] for name in names))


def _prefix(names: Sequence[str]) -> str:
    """The scopes that all names share."""
    parts = [name.split("/")[:-1] for name in names]
    shared = []
    for places in zip(*parts, strict=False):
        if len(set(places)) > 1:
            break
        shared.append(places[0])
    return "".join(f"{one}/" for one in shared)
