"""
Unit tests of the benchmarks and the soak; tests/system runs both.
"""

import tests.benchmarks  # noqa: F401
