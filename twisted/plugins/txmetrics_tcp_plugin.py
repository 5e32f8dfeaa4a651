"""Tells twistd of the command metrics-tcp; the module that it names is imported only when used."""

from twisted.application.service import ServiceMaker

metrics_tcp = ServiceMaker(
    "txmetrics-tcp",
    "txmetrics_tcp.tap",
    "Stream live metrics over TCP, of this process and machine, as protobuf.",
    "metrics-tcp",
)
