"""The parts of `ppo-tf plot`: runs are read from folders, grouped into curves, drawn as panels.

Nothing here imports TensorFlow, and only drawing imports Matplotlib.
"""
