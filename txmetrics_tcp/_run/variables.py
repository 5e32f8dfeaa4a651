"""
The environment of a program that ``metrics-tcp run`` runs.

`environment_for` is called by the command, `Options.from_environment` in the program.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

LISTEN = "TXMETRICS_TCP_LISTEN"
"""Where the exporter of a process listens: an endpoint or a directory."""

OPTIONS = "TXMETRICS_TCP_RUN"
"""The options of the command, as JSON."""

PROCESS = "TXMETRICS_TCP_RUN_PROCESS"
"""
The id of the process that is watched.  C{first} until a Python process that can be watched starts;
missing if all processes are watched.
"""

SITE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "site")
"""The directory of the module ``sitecustomize``, which Python imports when it starts."""


@dataclass(frozen=True)
class Options:
    """
    The options of the command that concern the program.

    @ivar interval: seconds between two readings of process and runtime.
    @ivar prometheus: whether to stream the metrics of prometheus_client.
    @ivar opentelemetry: whether to stream the measurements of OpenTelemetry.
    """

    interval: float = 1.0
    prometheus: bool = False
    opentelemetry: bool = False

    @classmethod
    def from_environment(cls) -> Options:
        return cls(**json.loads(os.environ[OPTIONS]))


def environment_for(
    options: Options, listen: str, environment: Mapping[str, str]
) -> dict[str, str]:
    """
    Return the environment of the program.

    @param listen: an endpoint; or a directory with a slash at the end, for a socket of each
        process.
    @param environment: the environment of the command.
    """
    made = {**environment, LISTEN: listen, OPTIONS: json.dumps(asdict(options))}
    # An empty path in PYTHONPATH would be the current directory.
    path = environment.get("PYTHONPATH")
    made["PYTHONPATH"] = os.pathsep.join([SITE, path]) if path else SITE
    made.pop(PROCESS, None)
    if not listen.endswith("/"):
        made[PROCESS] = "first"
    return made
