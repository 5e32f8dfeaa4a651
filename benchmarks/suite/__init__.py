"""
The benchmarks of txmetrics_tcp.

One module for each thing that is measured, with C{run}; beside them the processes that they measure
(C{*_peer}, C{*server}, C{reader}), and what all of them share.
"""
