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
    """How a whole network is trained."""

    fine_tune: bool = flag(
        help="train the whole network on the pixels, not a head on the embeddings: hours, not minutes"
    )
    fine_tune_from: str | None = option(
        TEXT,
        metavar="LAYER",
        help="train this layer or block and those behind it, and leave the ones before as they are (default: all)",
    )
    learning_rate: float = option(
        number(0, 1, above_low=True),
        default=3e-4,
        metavar="X",
        help="of AdamW, after the warm-up and before the cosine (default 0.0003)",
    )
    batch_size: int = option(whole(2), default=32, metavar="N", help="images a step (default 32)")
    patience: int = option(
        whole(1),
        default=5,
        metavar="N",
        help="stop after so many epochs without a better validation, in the second half (default 5)",
    )
    augment: str = choice(
        (DEFAULT, NONE),
        default=DEFAULT,
        help="default: train images are flipped, cropped and changed in colour by chance (default default)",
    )
    dropout: float = option(
        number(0, 0.9, above_low=False),
        default=0.2,
        metavar="X",
        help="share of the features that the head does not see in a step (default 0.2)",
    )
    label_smoothing: float = option(
        number(0, 0.5, above_low=False),
        default=0.0,
        metavar="X",
        help="share of a truth that is given to all classes alike, for truth that is often wrong (default 0)",
    )
    mixed_precision: str = choice(
        (AUTO, ON, OFF),
        default=AUTO,
        help="compute in 16 bits where that is safe; auto: on a GPU (default auto)",
    )
    if_exists: str = choice(
        (ERROR, RESUME),
        default=ERROR,
        help="resume: go on with a training into --output that was cut short (default error)",
    )


def check(options: FineTuneOptions) -> None:
    """Raises ``UsageError`` for an option of fine-tuning without ``--fine_tune``."""
    if options.fine_tune:
        return
    for field in dataclasses.fields(options):
        if getattr(options, field.name) != field.default:
            raise UsageError(f"--{field.name} is for --fine_tune, which is not given")
