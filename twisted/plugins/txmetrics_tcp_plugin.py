"""Registers the twistd command metrics-tcp.  The named module is imported only when it is used."""

from twisted.application.service import ServiceMaker

metrics_tcp = ServiceMaker(
    "txmetrics-tcp",
    "txmetrics_tcp.tap",
    "Stream live metrics of this process and machine over TCP as Protocol Buffers.",
    "metrics-tcp",
)
