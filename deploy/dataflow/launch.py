"""The program of the flex template's launcher; its arguments are the template's parameters."""

import sys

from beamlabel.pipeline.__main__ import console
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.flex_template import command_line
from beamlabel.pipeline.options.parser import usage

if __name__ == "__main__":
    try:
        sys.argv[1:] = command_line(sys.argv[1:])
    except UsageError as error:
        usage(error)
        sys.exit(2)
    console()
