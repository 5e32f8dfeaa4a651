"""
``metrics-tcp observe``: a full-screen terminal viewer for live metrics.

`txmetrics_tcp.cli.observe` imports these modules, and Textual with them, when the command runs.
"""
