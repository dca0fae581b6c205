"""Faults on purpose: every long command of the package killed, cut off from power, starved of disk and memory, and run again.

`python -m tests.faults` runs them all and writes docs/faults.csv and the table of docs/reliability.md; tests/test_faults.py asks for
the same cells one by one.
"""
