"""Utilities that are not part of PPO: safe files and folders, extras, keywords, seeds, output.

Nothing here knows about learning, and no module imports TensorFlow when it is imported.
"""
