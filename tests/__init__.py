"""
The test suite; run it with ``python -m twisted.trial tests``, or with ``python -W error``.
"""

import os
import shutil
import warnings
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The clone that is tested."""


DESCRIPTORS = Path("/proc/self/fd")
"""The descriptors of this process, as Linux lists them."""

no_descriptors = "" if DESCRIPTORS.exists() else f"needs {DESCRIPTORS}"


def needs(name: str) -> str | None:
    """Why a test that needs a module or a program of this name is skipped; None if it is here."""
    return None if find_spec(name) or shutil.which(name) else f"needs {name}"


def environment(modules: Path | None = None) -> dict[str, str]:
    """
    That of this process, for one that is to find the clone.

    @param modules: a directory of modules that it finds before all others.
    """
    path = [modules, ROOT, os.environ.get("PYTHONPATH")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, path)))}


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
