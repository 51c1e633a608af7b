"""The options of ``beamlabel train``: which rows, how they are split, and how the head is trained."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from beamlabel.pipeline.options.declare import choice, flag, option, positionals, required
from beamlabel.pipeline.options.types import BYTE_SIZE, DURATION, SHA256, TEXT, OptionType, whole
from beamlabel.transforms.module_process.limits import DEADLINE_SECONDS, Limits

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
    """The rows that a head is trained on."""

    outputs: tuple[str, ...] = positionals(
        metavar="OUTPUT",
        help="outputs with embeddings, folders of outputs, or globs of either, such as labels/ or 'labels/dt=*/'",
    )
    module: str | None = option(
        TEXT,
        metavar="HANDLE",
        help="the module that made the embeddings (default: the one that the outputs name)",
    )
    module_fingerprint: str | None = option(
        SHA256, metavar="SHA256", help="refuse the module unless this is its fingerprint"
    )
    allow_unsafe_ops: bool = flag(
        help="run a module whose graph may read, write or send anything; it runs with your rights"
    )
    module_deadline: float = option(
        DURATION,
        default=DEADLINE_SECONDS,
        metavar="TIME",
        help="to fetch the module, and to load and try it, in a process of its own that is ended then (default 10m)",
    )
    module_memory: int | None = option(
        BYTE_SIZE, metavar="SIZE", help="for this process, such as 8G (default: what is free, at least 4G)"
    )
    split: tuple[float, float, float] = option(
        SHARES,
        default=(0.8, 0.1, 0.1),
        metavar="A,B,C",
        help="shares of train, validation and test, by a hash of the content (default 80,10,10)",
    )
    split_column: str | None = option(
        TEXT,
        metavar="NAME",
        help="column of the output that says train, validation or test, in place of --split",
    )
    seed: int = option(whole(0), default=0, metavar="N", help="of the split and the training (default 0)")
    min_images: int = option(
        whole(1),
        default=2,
        metavar="N",
        help="leave out classes with fewer images, which nothing could be tested on (default 2)",
    )
    normalized: bool = flag(
        help="train on embeddings of L2 length 1 (--normalize_embeddings), which are refused otherwise"
    )

    @property
    def limits(self) -> Limits:
        """Of the process that fetches and tries the module."""
        return Limits(self.module_deadline, self.module_memory)


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """How the head is trained."""

    class_weights: str = choice(
        ("none", BALANCED),
        default="none",
        help="balanced: images of rare classes weigh more, so that each class weighs the same (default none)",
    )
    epochs: int | None = option(
        whole(1), metavar="N", help="passes over the train images at most (default: by their number)"
    )


@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """Where the module goes, and what is found out beside it."""

    output: str = required(metavar="DIR", help="of the module: a folder or gs:// path that is not there yet")
    max_suspects: int = option(
        whole(0), default=100, metavar="N", help="images of likely wrong truth in the report (default 100)"
    )
