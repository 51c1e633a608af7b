"""How an image's deadline is spent: the same for ``gs://`` and the web."""

STALL = 1 / 3
"""A server that is silent for this share of the deadline is asked again: else one lost packet costs it all."""

LAST_START = 3 / 4
"""No try begins after this share of the deadline: it would but time out, and hide what the others met."""
