"""
The exception for TLS configuration and verification errors.

This module does not import OpenSSL.
"""

from __future__ import annotations

TLS_NEEDS = "TLS needs pyOpenSSL and service-identity: pip install 'txmetrics-tcp[tls]'"
"""The error message if these packages are not installed."""


class TLSError(ValueError):
    """TLS cannot be used as configured, or the peer's certificate is invalid."""


class TLSNameError(TLSError):
    """The name that a certificate must be valid for is not a host name or address."""
