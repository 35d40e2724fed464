"""The loop: collect, update, call back; and the checkpoints it goes on from.

An update is in `learning`, the training command in `command`.
"""
