"""
The service of the collector, with a fake reactor.
"""

from __future__ import annotations

import shutil
import socket
import tempfile

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import MetricsFactory
from txmetrics_tcp.relay.collector import CollectorService
from txmetrics_tcp.testing import FakeReactor


class DirectoryTests(SynchronousTestCase):
    def test_startedOnce(self) -> None:
        """The client of each socket that exists at the start is started once."""
        # The path of a socket must be short.
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(f"{directory}/a.sock")
        reactor = FakeReactor()
        recorder = MetricsFactory(reactor).recorder
        collector = CollectorService(reactor, recorder, sources=[f"{directory}/"])
        with capturedLogs() as logged:
            collector.startService()
        self.assertEqual([event for event in logged if "Duplicate" in str(event)], [])
        collector.stopService()
