"""``python -m gpubp``: the command line."""

import sys

from gpubp._cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
