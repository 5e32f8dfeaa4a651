"""
Bridges between this library and other systems of metrics.

  - `txmetrics_tcp.bridges.opentelemetry` streams the measurements of OpenTelemetry's instruments.
  - `txmetrics_tcp.bridges.exposition` serves totals to Prometheus.
  - `txmetrics_tcp.bridges.prometheus` streams what is measured with prometheus_client.
"""
