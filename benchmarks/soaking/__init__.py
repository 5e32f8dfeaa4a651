"""
What `benchmarks/soak.py` is made of: a plan, a server, a crowd of clients, and checks.
"""
