"""``python -m beamlabel.transforms.beam_yaml`` writes the path of the provider file."""

import sys

from beamlabel.transforms.beam_yaml import PROVIDER

sys.stdout.write(f"{PROVIDER}\n")
