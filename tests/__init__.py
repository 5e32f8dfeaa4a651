"""
The test suite; run it with ``python -m twisted.trial tests``, or with ``python -W error``.
"""

import shutil
import warnings
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The clone that is tested."""


def needs(name: str) -> str | None:
    """Why a test that needs a module or a program of this name is skipped; None if it is here."""
    return None if find_spec(name) or shutil.which(name) else f"needs {name}"


# What is Twisted's: it gives pyOpenSSL what that has deprecated, whoever asks Twisted for TLS.
warnings.filterwarnings("ignore", "Passing pyOpenSSL", DeprecationWarning)

# The soak test's programs use modules from here, and need no Hypothesis.
with suppress(ImportError):
    from hypothesis import HealthCheck, settings

    # The same few examples in each run, however busy the machine is, with and without `CI` in the
    # environment; `tests/fuzz.py` looks for new ones.
    settings.register_profile(
        "suite",
        max_examples=25,
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("suite")
