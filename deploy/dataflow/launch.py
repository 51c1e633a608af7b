"""What the flex template's launcher runs, with the template's parameters as its arguments."""

import sys

from pipeline.__main__ import console
from pipeline.options import UsageError, usage
from pipeline.template_parameters import command_line

if __name__ == "__main__":
    try:
        sys.argv[1:] = command_line(sys.argv[1:])
    except UsageError as error:
        usage(error)
        sys.exit(2)
    console()
