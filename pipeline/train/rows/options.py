"""The options of ``beamlabel train``: the rows, their split, and the training of the head."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from beamlabel.pipeline.options.declare import choice, flag, option, positionals, required
from beamlabel.pipeline.options.module_limits import deadline_option, memory_option
from beamlabel.pipeline.options.types import SHA256, TEXT, OptionType, whole
from beamlabel.transforms.module_process.limits import Limits

BALANCED = "balanced"


def _shares(text: str) -> tuple[float, float, float]:
    """``80,10,10`` → shares of 1."""
    try:
        parts = [float(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if len(parts) != 3 or not all(0 <= part < float("inf") for part in parts) or not (parts[0] and parts[1]):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected train,validation,test such as 80,10,10; train and validation above 0"
        )
    return parts[0] / sum(parts), parts[1] / sum(parts), parts[2] / sum(parts)


SHARES = OptionType(_shares, "^ *[0-9.eE+-]+ *, *[0-9.eE+-]+ *, *[0-9.eE+-]+ *$")


@dataclass(frozen=True, kw_only=True)
class RowsOptions:
    """The rows to train a head on."""

    outputs: tuple[str, ...] = positionals(
        metavar="OUTPUT",
        help="outputs with embeddings, directories of outputs, or globs of either, such as labels/ or 'labels/dt=*/'",
    )
    module: str | None = option(
        TEXT,
        metavar="HANDLE",
        help="module that made the embeddings (default: the one named in the outputs)",
    )
    module_fingerprint: str | None = option(
        SHA256, metavar="SHA256", help="refuse a module with another fingerprint"
    )
    allow_unsafe_ops: bool = flag(
        help="run a module whose graph may read, write or send anything, with your permissions"
    )
    module_deadline: float = deadline_option("fetches, loads and tries")
    module_memory: int | None = memory_option()
    split: tuple[float, float, float] = option(
        SHARES,
        default=(0.8, 0.1, 0.1),
        metavar="A,B,C",
        help="shares of train, validation and test, split by a hash of the content (default 80,10,10)",
    )
    split_column: str | None = option(
        TEXT,
        metavar="NAME",
        help="output column with train, validation or test, instead of --split",
    )
    seed: int = option(
        whole(0), default=0, metavar="N", help="seed of the split and the training (default 0)"
    )
    min_images: int = option(
        whole(1),
        default=2,
        metavar="N",
        help="leave out classes with fewer images, which could not be tested (default 2)",
    )
    normalized: bool = flag(
        help="train on embeddings of L2 length 1 (from --normalize_embeddings), which are refused otherwise"
    )

    @property
    def limits(self) -> Limits:
        """Limits of the process that fetches and tries the module."""
        return Limits(self.module_deadline, self.module_memory)


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """Options for training the head."""

    class_weights: str = choice(
        ("none", BALANCED),
        default="none",
        help="balanced: weight images so that every class counts the same (default none)",
    )
    epochs: int | None = option(
        whole(1), metavar="N", help="most passes over the training images (default: set by their number)"
    )


@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """The directory of the module, and the size of its report."""

    output: str = required(metavar="DIR", help="new directory for the module: local or a gs:// path")
    max_suspects: int = option(
        whole(0),
        default=100,
        metavar="N",
        help="most images with likely wrong truth in the report (default 100)",
    )
