"""
System tests with real processes, reactors or sockets that take about a second each and need no
special tools.
"""
