"""The fault suite: a real stack, producers, faults and the oracle. docs/reliability.md has its table.

`make test` runs the short form; `make test-faults` the long one, which writes the table.
"""
