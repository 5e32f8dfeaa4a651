"""
The tests; ``python -m twisted.trial tests`` runs all of them.  See also CONTRIBUTING.md.
"""

import os
import shutil
import sys
import warnings
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The root of the source tree."""

DESCRIPTORS = Path("/proc/self/fd")
"""The descriptors of this process, as Linux lists them."""

no_descriptors = "" if DESCRIPTORS.exists() else f"needs {DESCRIPTORS}"


def needs(name: str) -> str | None:
    """Return the reason to skip a test that needs a module or program, or None if it exists."""
    # The package of a submodule may be missing.
    with suppress(ModuleNotFoundError):
        if find_spec(name) or shutil.which(name):
            return None
    return f"needs {name}"


def environment(modules: Path | None = None) -> dict[str, str]:
    """
    Return the environment of a child process that imports from the source tree.

    @param modules: a directory of modules that take precedence over all others.
    """
    path = [modules, ROOT, os.environ.get("PYTHONPATH")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, path)))}


# A worker of `trial --jobs` has trial's whole sys.path in this variable. Programs that tests start
# have paths of their own.
if Path(sys.argv[0]).name == "workertrial.py":
    os.environ.pop("PYTHONPATH", None)

# Twisted passes a deprecated argument to pyOpenSSL whenever TLS is used.
warnings.filterwarnings("ignore", "Passing pyOpenSSL", DeprecationWarning)

# The soak's programs import this package without Hypothesis.
with suppress(ImportError):
    from hypothesis import HealthCheck, settings

    # Each run uses the same few examples, with or without `CI` in the environment. Deadlines are
    # off, since the machine may be busy. `tests/fuzz.py` searches for new examples.
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
