"""Broken and hostile files against everything that reads files: ``make fuzz``.

Each input is one seed of ``corpus/`` changed at random, and read in another process with a limit of time and memory.
Only errors of ``sparsegpt_core.errors`` may come out of it; whatever else does is a finding.
"""
