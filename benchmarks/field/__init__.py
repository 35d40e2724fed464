"""One file for each library that benchmarks/speed.py measures.

Each has `train(job, clock)`: it trains through the library's public interface, with the settings of
the job, and calls `clock.tick()` at the end of every whole iteration (collecting and updating). It
may return a dict of further findings. What it can't do it raises, and the table names it.

Imported by benchmarks/speed_worker.py, each in the library's own virtual environment:
nothing here imports what only another library installs.
"""
