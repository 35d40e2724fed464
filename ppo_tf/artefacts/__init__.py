"""Artefacts: a policy as files that act without ppo_tf.

Checkpoints, which only ppo_tf reads, are in `training`.
"""
