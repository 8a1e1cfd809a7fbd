"""What commands do, as functions that know no terminal.

May import ``report``, ``resume``, ``figures``, ``messages`` and the packages below.
No face: each command imports the one job that it runs, so that it starts at once.
"""
