"""
The benchmarks of txmetrics_tcp.

One module for each thing that is measured, with C{run}; beside them the processes that take part
(C{server}, C{ready_made}, C{reader}), and what all of them share.
"""
