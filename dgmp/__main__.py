"""`python -m dgmp`: the same as the dgmp command."""

import sys

from .cli import main

sys.exit(main())
