"""
The benchmarks and the soak: their tables, accounts and checks; tests/system runs them.
"""

import tests.benchmarks  # noqa: F401
