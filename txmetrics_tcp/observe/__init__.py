"""
``metrics-tcp observe``: metrics live, on the whole screen of a terminal.

Here is nothing but the modules: `command` is what the console script loads, and it imports the
rest, and with that Textual, only when it runs.
"""
