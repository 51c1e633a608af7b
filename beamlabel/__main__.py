"""``python -m beamlabel`` and the installed command: the labeling job, and the commands beside it."""

import os
import signal


def console() -> None:
    """Imports and runs the program; Ctrl-C during the import ends it without a traceback."""
    try:
        from beamlabel.pipeline.__main__ import console as run
    except KeyboardInterrupt:
        os._exit(128 + signal.SIGINT)
    run()


if __name__ == "__main__":
    console()
