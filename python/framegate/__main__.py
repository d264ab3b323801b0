"""`python -m framegate`: the `platform` command."""

import sys

from framegate.cli import main

if __name__ == "__main__":
    sys.exit(main())
