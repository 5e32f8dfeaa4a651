"""
Failures in log events.
"""

from __future__ import annotations

from twisted.python.failure import Failure


def without_frames(failure: Failure) -> Failure:
    """
    Prepare a failure for a log event: remove its references to frames, and thus to the objects that
    their local variables refer to.  Its traceback is still printed.

    Twisted keeps the first 65,536 log events of a program that does not begin logging, and would
    keep these objects with them: a stopped exporter with all its totals, for example.

    @return: the same failure.
    """
    if isinstance(failure.value, Exception):
        # Other exceptions, such as KeyboardInterrupt, propagate with their traceback.
        failure.cleanFailure()
        errors: list[BaseException] = [failure.value]
        for error in errors:
            error.__traceback__ = None
            causes = (error.__cause__, error.__context__)
            errors += [cause for cause in causes if cause is not None and cause not in errors]
    return failure
