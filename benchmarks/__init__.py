"""Measurements: each writes its raw samples, the machine, the versions and the command that repeats it."""
