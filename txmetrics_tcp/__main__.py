"""
``python -m txmetrics_tcp``: equivalent to the console script ``metrics-tcp``.
"""

import sys

from txmetrics_tcp.cli import main

sys.exit(main())
