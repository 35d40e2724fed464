"""AgileRL, with one agent instead of a population."""

import gymnasium
import numpy as np
from agilerl.algorithms import PPO
from agilerl.modules import EvolvableMLP
from agilerl.rollouts import collect_rollouts

from field.job import HIDDEN_SIZES
from field.vector import make_vector


def train(job, clock):
    """Trains, with the two calls that its on-policy training makes in turn."""
    envs = make_vector(job)
    agent = PPO(
        envs.single_observation_space,
        envs.single_action_space,
        batch_size=job.minibatch,
        learn_step=job.steps,
        update_epochs=job.epochs,
        num_envs=job.num_envs,
        actor_network=network(envs, actor=True),
        critic_network=network(envs, actor=False),
        share_encoders=False,
    )
    agent.set_training_mode(True)
    latest = {}
    for _ in range(job.all_iterations):
        found = collect_rollouts(agent, envs, **latest)
        names = ("last_obs", "last_done", "last_scores", "last_info")
        latest = dict(zip(names, found[1:], strict=True))
        agent.learn()
        clock.tick()
    envs.close()


def network(envs, actor):
    """Returns a network of two hidden layers: its default ones have three."""
    space = envs.single_action_space
    discrete = isinstance(space, gymnasium.spaces.Discrete)
    outputs = int(space.n) if discrete else int(np.prod(space.shape))
    return EvolvableMLP(
        num_inputs=envs.single_observation_space.shape[0],
        num_outputs=outputs if actor else 1,
        hidden_size=list(HIDDEN_SIZES),
        activation="Tanh",
        layer_norm=False,
    )
