"""
Importing this module makes the packages and programs in benchmarks/ importable.
"""

import sys

from tests import ROOT

BENCHMARKS = ROOT / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.append(str(BENCHMARKS))
