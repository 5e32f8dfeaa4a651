"""
Imported for its effect: the packages in benchmarks/ can be imported, and so can its programs.
"""

import sys

from tests import ROOT

BENCHMARKS = ROOT / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.append(str(BENCHMARKS))
