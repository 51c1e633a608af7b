"""The confidence interval of a share of images."""

from __future__ import annotations

import math
from statistics import NormalDist

LEVEL = 0.95


def wilson(part: int, whole: int, level: float = LEVEL) -> tuple[float, float] | None:
    """The score interval of a binomial proportion; None if ``whole`` is 0.

    It is that of E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the
    American Statistical Association 22 (1927), 209-212. It stays within 0 and 1 even near these limits.

    Args:
      part, whole: numbers of images in the share, and in all.
      level: confidence level.
    """
    if not whole:
        return None
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = part / whole
    middle = share + z * z / (2 * whole)
    spread = z * math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    low, high = ((middle + sign * spread) / (1 + z * z / whole) for sign in (-1, 1))
    return (0.0 if part == 0 else low), (1.0 if part == whole else high)
