"""
System tests that start real processes, reactors or sockets, take a second or so each, and need no
special tools.
"""
