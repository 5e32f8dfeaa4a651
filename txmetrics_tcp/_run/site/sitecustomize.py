"""
Python imports this module when it starts, in a program that ``metrics-tcp run`` runs.

The module starts the metrics, and then imports the next module of this name, as Python would have
done.  The Python of the program may be any version, without this package: the syntax is that of
Python 2.7, and errors never reach the program.
"""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
_VARIABLES = ("TXMETRICS_TCP_LISTEN", "TXMETRICS_TCP_RUN", "TXMETRICS_TCP_RUN_PROCESS")


def _is_watched():
    if "multiprocessing.resource_tracker" in "".join(getattr(sys, "orig_argv", [])):
        # A process of Python's own, beside programs that use multiprocessing.
        return False
    # "first" is replaced by the id of the first process, which other programs that the process
    # executes keep.  Without the variable, all processes are watched.
    process = os.environ.get("TXMETRICS_TCP_RUN_PROCESS", "first")
    return process in ("first", str(os.getpid()))


def _start():
    try:
        from txmetrics_tcp._run.bootstrap import start
    except Exception as error:
        # The directory stays in PYTHONPATH: the program may start the Python that has the package.
        sys.stderr.write(
            "metrics-tcp run: no metrics of %s, which cannot import txmetrics_tcp: %s\n"
            % (sys.executable, str(error).replace("\n", " "))
        )
        return
    if os.environ.get("TXMETRICS_TCP_RUN_PROCESS") == "first":
        os.environ["TXMETRICS_TCP_RUN_PROCESS"] = str(os.getpid())
    start()


def _clean_environment():
    """Remove what ``metrics-tcp run`` added to the environment."""
    for name in _VARIABLES:
        os.environ.pop(name, None)
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(one for one in path if one != _HERE)
    if not os.environ["PYTHONPATH"]:
        del os.environ["PYTHONPATH"]


def _import_next():
    sys.path[:] = [one for one in sys.path if one != _HERE]
    this = sys.modules.pop("sitecustomize")
    try:
        import sitecustomize  # noqa: F401
    except ImportError as error:
        if getattr(error, "name", "sitecustomize") != "sitecustomize":
            raise
        sys.modules["sitecustomize"] = this


try:
    if "TXMETRICS_TCP_RUN" in os.environ:
        if _is_watched():
            _start()
        else:
            _clean_environment()
except Exception as error:
    sys.stderr.write("metrics-tcp run: cannot stream metrics: %s\n" % error)
_import_next()
