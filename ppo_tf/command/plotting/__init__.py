"""What `ppo-tf plot` draws: runs read from folders, grouped into curves, drawn as panels.

Nothing here imports TensorFlow, and only drawing imports Matplotlib.
"""
