"""What a policy becomes outside of ppo_tf: files that act without it.

Checkpoints, which only ppo_tf reads, are in `training`.
"""
