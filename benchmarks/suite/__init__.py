"""
The benchmarks of txmetrics_tcp.

Each benchmark is a module with a function C{run}. The other modules are the processes that take
part (C{server}, C{ready_made}, C{reader}) and shared code.
"""
