"""The parts of examples/sweep.py."""
