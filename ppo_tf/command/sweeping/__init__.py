"""What `ppo-tf sweep` is made of: what to try, the runs to make, their processes, the results.

Nothing here imports TensorFlow: runs are processes of the training command.
"""
