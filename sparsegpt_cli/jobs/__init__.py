"""The work of the commands, as functions that do not depend on a terminal.

May import ``report``, ``resume``, ``figures``, ``messages`` and the packages below.
No face: each command imports only the job that it runs, so it starts at once.
"""
