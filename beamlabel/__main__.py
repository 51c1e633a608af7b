"""``python -m beamlabel``: the labeling job, and the commands beside it."""

from beamlabel.pipeline.__main__ import console

if __name__ == "__main__":
    console()
