"""
``metrics-tcp observe``: metrics live, on the whole screen of a terminal.

`txmetrics_tcp.cli.observe` runs it, and imports these modules, and with them Textual, only then.
"""
