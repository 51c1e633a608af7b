"""``python -m beamlabel.transforms.beam_yaml`` prints the path of the provider file."""

import sys

from beamlabel.transforms.beam_yaml import PROVIDER

sys.stdout.write(f"{PROVIDER}\n")
