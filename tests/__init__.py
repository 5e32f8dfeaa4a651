"""
The test suite; run it with ``python -m twisted.trial tests``, or with ``python -W error``.
"""

import warnings
from contextlib import suppress

# What is Twisted's: it gives pyOpenSSL what that has deprecated, whoever asks Twisted for TLS.
warnings.filterwarnings("ignore", "Passing pyOpenSSL", DeprecationWarning)

# The soak test's programs use modules from here, and need no Hypothesis.
with suppress(ImportError):
    from hypothesis import settings

    # A machine that is busy with other things fails no test.
    settings.register_profile("suite", deadline=None)
    settings.load_profile("suite")
