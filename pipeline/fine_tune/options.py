"""The options of ``beamlabel train --fine_tune``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.declare import choice, flag, option
from beamlabel.pipeline.options.types import TEXT, number, whole

DEFAULT, NONE = "default", "none"
AUTO, ON, OFF = "auto", "on", "off"
ERROR, RESUME = "error", "resume"


@dataclass(frozen=True, kw_only=True)
class FineTuneOptions:
    """Options for training a whole network."""

    fine_tune: bool = flag(
        help="train the whole network on pixels instead of a head on embeddings: takes hours, not minutes"
    )
    fine_tune_from: str | None = option(
        TEXT,
        metavar="LAYER",
        help="train this layer or block and all after it; keep the earlier ones unchanged (default: train all)",
    )
    learning_rate: float = option(
        number(0, 1, above_low=True),
        default=3e-4,
        metavar="X",
        help="learning rate of AdamW between warm-up and cosine decay (default 0.0003)",
    )
    batch_size: int = option(whole(2), default=32, metavar="N", help="images per step (default 32)")
    patience: int = option(
        whole(1),
        default=5,
        metavar="N",
        help="in the second half, stop after N epochs without a better validation result (default 5)",
    )
    augment: str = choice(
        (DEFAULT, NONE),
        default=DEFAULT,
        help="default: flip, crop and recolor training images at random (default default)",
    )
    dropout: float = option(
        number(0, 0.9, above_low=False),
        default=0.2,
        metavar="X",
        help="share of the features hidden from the head in each step (default 0.2)",
    )
    label_smoothing: float = option(
        number(0, 0.5, above_low=False),
        default=0.0,
        metavar="X",
        help="share of each truth spread evenly over all classes, for truth with many errors (default 0)",
    )
    mixed_precision: str = choice(
        (AUTO, ON, OFF),
        default=AUTO,
        help="compute in 16 bits where safe; auto: only on a GPU (default auto)",
    )
    if_exists: str = choice(
        (ERROR, RESUME),
        default=ERROR,
        help="resume: continue an interrupted training into --output (default error)",
    )


def check(options: FineTuneOptions) -> None:
    """Raises ``UsageError`` for an option of fine-tuning without ``--fine_tune``."""
    if options.fine_tune:
        return
    for field in dataclasses.fields(options):
        if getattr(options, field.name) != field.default:
            raise UsageError(f"--{field.name} needs --fine_tune")
