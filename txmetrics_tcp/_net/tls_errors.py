"""
What is raised where TLS cannot be had.  No OpenSSL.
"""

from __future__ import annotations

TLS_NEEDS = "TLS needs pyOpenSSL and service-identity: pip install 'txmetrics-tcp[tls]'"
"""What to say where they are not installed."""


class TLSError(ValueError):
    """TLS cannot be had as it was asked for.  The text, one line, says why."""
