"""
Makes the packages and programs in benchmarks/ importable, as a side effect of its import.
"""

import sys

from tests import ROOT

BENCHMARKS = ROOT / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.append(str(BENCHMARKS))
