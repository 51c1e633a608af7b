"""``--module demo`` and the sample photographs."""
