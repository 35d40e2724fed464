"""The parts of `ppo-tf sweep`: the request, what to try, the runs, their processes, the results.

Nothing here imports TensorFlow: each run is a process of the training command.
"""
