"""
The parts of `benchmarks/soak.py`: a plan, a server, a crowd of clients, and checks.
"""
