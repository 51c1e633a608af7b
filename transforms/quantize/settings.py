"""Quantization settings, and the order in which they are tried."""

from __future__ import annotations

from dataclasses import dataclass

MIXED, PERFORMANCE = "mixed", "performance"


@dataclass(frozen=True)
class Setting:
    """One way to quantize.

    Attributes:
      preset: NNCF's preset: ``mixed`` allows any range of activations, ``performance`` only ranges around 0.
      first, last: number of the first and last layers with weights that stay in float32.
      accuracy_control: whether NNCF chooses the layers that stay in float32 instead.
    """

    preset: str = MIXED
    first: int = 0
    last: int = 0
    accuracy_control: bool = False

    def text(self) -> str:
        """The setting as text."""
        if self.accuracy_control:
            return f"{self.preset}, float32 as NNCF's accuracy control chooses"
        if not self.first and not self.last:
            return f"{self.preset}, nothing in float32"
        ends = [
            f"the {name} {count}" for name, count in (("first", self.first), ("last", self.last)) if count
        ]
        return f"{self.preset}, {' and '.join(ends)} in float32"


# All settings of a round are tried, and the fastest that passes wins. If none passes, the next round follows. Each
# round leaves more in float32 and takes more time.
ROUNDS: tuple[tuple[Setting, ...], ...] = (
    (Setting(), Setting(PERFORMANCE)),
    (Setting(first=1), Setting(last=2)),
    (Setting(first=1, last=2), Setting(first=3)),
    (Setting(first=6, last=2),),
    (Setting(first=12, last=2),),
    (Setting(accuracy_control=True),),
)
