"""
System tests that start real processes, reactors or sockets, and take well under a second or so
each; no special tools are needed.
"""
