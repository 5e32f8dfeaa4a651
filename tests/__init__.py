"""
The test suite; run it with ``python -m twisted.trial tests``, or with ``python -W error``.
"""

import warnings
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The clone that is tested."""

# What is Twisted's: it gives pyOpenSSL what that has deprecated, whoever asks Twisted for TLS.
warnings.filterwarnings("ignore", "Passing pyOpenSSL", DeprecationWarning)

# The soak test's programs use modules from here, and need no Hypothesis.
with suppress(ImportError):
    from hypothesis import HealthCheck, settings

    # A machine that is busy with other things fails no test; and `.ci/strict.py` runs each test
    # twice, as a method of another instance.
    unchecked = [HealthCheck.too_slow, HealthCheck.differing_executors]
    settings.register_profile("suite", deadline=None, suppress_health_check=unchecked)
    settings.load_profile("suite")
