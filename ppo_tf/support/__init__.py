"""What every program needs and no part of PPO is: whole files and folders, extras, seeds, silence.

Nothing here knows what is learned, and nothing imports TensorFlow.
"""
