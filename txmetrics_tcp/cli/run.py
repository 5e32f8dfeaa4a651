"""
The command ``run``: execute a program with an environment in which its metrics are streamed.
"""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable

from txmetrics_tcp._net.endpoint_syntax import (
    HOST_PORT,
    PORT,
    EndpointError,
    check_port,
    reads_as_endpoint,
)
from txmetrics_tcp._run.variables import Options, environment_for
from txmetrics_tcp._view.text import visible

CANNOT_EXECUTE = 126
NOT_FOUND = 127

Execute = Callable[[str, list[str], dict[str, str]], object]
"""A function such as `os.execvpe`."""


def run(options: argparse.Namespace, execute: Execute = os.execvpe) -> int:
    """
    Replace this process by the program.

    @return: the exit code if that fails.
    @raise EndpointError: C{--listen} is invalid.
    """
    listen = _checked_listen(options.listen)
    for_program = Options(options.interval, options.prometheus, options.opentelemetry)
    environment = environment_for(for_program, listen, os.environ)
    _restore_signals()
    try:
        try:
            execute(options.program[0], options.program, environment)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            # A script without an interpreter line. The shell runs it, as for `env`.
            path = shutil.which(options.program[0]) or options.program[0]
            execute("/bin/sh", ["/bin/sh", path, *options.program[1:]], environment)
    except (OSError, ValueError) as error:
        name = visible(options.program[0])
        why = error.strerror if isinstance(error, OSError) else str(error)
        print(f"metrics-tcp run: cannot run {name}: {why}", file=sys.stderr)
        return NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_EXECUTE
    return 0


def _checked_listen(listen: str) -> str:
    """
    @return: the endpoint; or the absolute path of the directory, with a slash at the end.  The
        program may change its working directory.
    @raise EndpointError: the endpoint is invalid.
    """
    if not reads_as_endpoint(listen):
        if listen.endswith("/") or os.path.isdir(listen):
            return os.path.join(os.path.abspath(listen), "")
        if "/" in listen and ":" not in listen:
            raise EndpointError(f"{listen}: no such directory; to create it, write {listen}/")
    if PORT.fullmatch(listen) or (HOST_PORT.fullmatch(listen) and "." in listen):
        check_port(listen)
    else:
        # Imported only here: this loads Twisted, which takes longer than everything else.
        from txmetrics_tcp._net.endpoints import check_server_endpoint

        check_server_endpoint(listen)
    return listen


def _restore_signals() -> None:
    """Restore the signals that Python ignores, which the program would inherit."""
    for name in ("SIGPIPE", "SIGXFSZ"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
