"""The command line: commands, the jobs that they run, and the report.

May import every other package.
"""
