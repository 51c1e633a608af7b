"""``beamlabel train --fine_tune``: trains a whole network, not only a head."""
