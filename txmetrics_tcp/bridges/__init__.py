"""
Bridges between this library and other systems of metrics.

  - `txmetrics_tcp.bridges.asyncio` measures an event loop.
  - `txmetrics_tcp.bridges.exposition` serves totals to Prometheus.
  - `txmetrics_tcp.bridges.logging` counts log records.
  - `txmetrics_tcp.bridges.opentelemetry` streams the measurements of OpenTelemetry's instruments.
  - `txmetrics_tcp.bridges.otlp` exports totals with OTLP.
  - `txmetrics_tcp.bridges.prometheus` streams what is measured with prometheus_client.
  - `txmetrics_tcp.bridges.scrapy` streams Scrapy's statistics.
  - `txmetrics_tcp.bridges.statsd` receives metrics from clients of StatsD.
  - `txmetrics_tcp.bridges.twisted` measures web requests, the reactor, looping calls and logging.
"""
