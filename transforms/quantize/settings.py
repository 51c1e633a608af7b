"""What may be set when a module is quantized, and the order in which it is tried."""

from __future__ import annotations

from dataclasses import dataclass

MIXED, PERFORMANCE = "mixed", "performance"


@dataclass(frozen=True)
class Setting:
    """One way to quantize.

    Attributes:
      preset: NNCF's: ``mixed`` lets the range of activations lie anywhere, ``performance`` around 0.
      first, last: how many of the first and of the last layers with weights stay in float32.
      accuracy_control: whether NNCF finds the layers that stay in float32 instead.
    """

    preset: str = MIXED
    first: int = 0
    last: int = 0
    accuracy_control: bool = False

    def text(self) -> str:
        """In words."""
        if self.accuracy_control:
            return f"{self.preset}, float32 as NNCF's accuracy control chooses"
        if not self.first and not self.last:
            return f"{self.preset}, nothing in float32"
        ends = [
            f"the {name} {count}" for name, count in (("first", self.first), ("last", self.last)) if count
        ]
        return f"{self.preset}, {' and '.join(ends)} in float32"


# Settings of a round are all tried, and the fastest of those that pass is taken; if none does, the next round is. What
# stays in float32 only grows, and with it the time.
ROUNDS: tuple[tuple[Setting, ...], ...] = (
    (Setting(), Setting(PERFORMANCE)),
    (Setting(first=1), Setting(last=2)),
    (Setting(first=1, last=2), Setting(first=3)),
    (Setting(first=6, last=2),),
    (Setting(first=12, last=2),),
    (Setting(accuracy_control=True),),
)
