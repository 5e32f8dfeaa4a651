"""
Bridges between this library and other systems of metrics.

  - `txmetrics_tcp.bridges.exposition` serves totals to Prometheus.
"""
