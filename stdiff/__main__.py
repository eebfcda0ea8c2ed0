"""``python -m stdiff``, the same as the command ``stdiff``."""

import sys

from stdiff.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
