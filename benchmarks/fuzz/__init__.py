"""Tests every reader of files with broken and hostile files: ``make fuzz``.

Each input is a seed of ``corpus/`` with random changes. Another process reads it, with limits of time and memory. The
reader may raise only errors of ``sparsegpt_core.errors``; every other failure is a finding.
"""
