"""``beamlabel train --fine_tune``: all of a network is trained, not a head alone."""
