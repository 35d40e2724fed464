"""Whole rollouts collected by others: in this process, in processes of this machine, or on Ray.

`Crew` deals with all of them in the same way and replaces those that fail. What a worker needs is
Gymnasium, NumPy and an engine, which for LiteRT is without TensorFlow.
"""
