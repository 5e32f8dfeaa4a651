"""
A web site that streams metrics of Twisted itself: requests, the reactor, its thread pool, a looping
call, and what is logged.

    twistd -ny examples/twisted_web_app.py

Request C{http://127.0.0.1:8080/}, and watch with C{metrics-tcp observe}.  Environment variables
set the endpoints: WEB is a Twisted endpoint string; METRICS is an endpoint string, a port, or
HOST:PORT.
"""

import logging
import os

from twisted.application.internet import StreamServerEndpointService, TimerService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThread
from twisted.logger import Logger, globalLogPublisher
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from txmetrics_tcp import TcpBuilder, set_global_recorder
from txmetrics_tcp.bridges.logging import CountingHandler
from txmetrics_tcp.bridges.twisted import (
    CountingObserver,
    ReactorMetrics,
    measure_looping_call,
    measure_site,
)

log = Logger(namespace="shop")


class Shop(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> int:
        logging.getLogger("shop.library").warning("a library logs")
        deferred = deferToThread(os.getloadavg)
        deferred.addCallback(lambda load: request.write(b"Load: %f\n" % load[0]))
        deferred.addCallback(lambda ignored: request.finish())
        deferred.addErrback(lambda failure: log.failure("not answered", failure))
        return NOT_DONE_YET


metrics = TcpBuilder().listen_address(os.environ.get("METRICS", "127.0.0.1:5000")).service()
set_global_recorder(metrics.recorder)

site = Site(Shop())
measure_site(site)

tick = TimerService(0.5, log.info, "tick")
measure_looping_call(tick, "tick")

globalLogPublisher.addObserver(CountingObserver())
logging.basicConfig()
logging.getLogger().addHandler(CountingHandler())

endpoint = serverFromString(reactor, os.environ.get("WEB", "tcp:8080:interface=127.0.0.1"))
application = Application("shop")  # twistd looks for this name
metrics.setServiceParent(application)
ReactorMetrics(reactor).setServiceParent(application)
tick.setServiceParent(application)
StreamServerEndpointService(endpoint, site).setServiceParent(application)
