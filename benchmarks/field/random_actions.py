"""Steps ppo_tf's environments with random actions, and nothing else."""

import numpy as np

from field.ppo_tf import without_envpool


def train(job, clock):
    """Steps."""
    without_envpool(job)
    from ppo_tf.environments.backends import make_envs

    envs = make_envs(job.env, job.num_envs)
    envs.reset()
    actions = [
        np.stack([envs.single_action_space.sample() for _ in range(job.num_envs)])
        for _ in range(job.horizon)
    ]
    for _ in range(job.all_iterations):
        for action in actions:
            envs.step(action)
        clock.tick()
