"""
The test suite; run it with ``python -m twisted.trial tests``, or with ``python -W error``.
"""

import warnings

# What is Twisted's: it gives pyOpenSSL what that has deprecated, whoever asks Twisted for TLS.
warnings.filterwarnings("ignore", "Passing pyOpenSSL", DeprecationWarning)
