"""The training loop (collect, update, call back) and the checkpoints from which it resumes.

Updates are in `learning`, the training command in `command`.
"""
