"""``python -m progressive_attention`` is the command ``pan``."""

import sys

from progressive_attention.cli import main

if __name__ == "__main__":
    sys.exit(main())
