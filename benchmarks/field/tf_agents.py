"""TF-Agents: collecting by its driver, updates in one compiled function."""

import numpy as np
import tensorflow as tf
from gymnasium.spaces import Discrete
from tf_agents.agents.ppo.ppo_clip_agent import PPOClipAgent
from tf_agents.drivers.dynamic_step_driver import DynamicStepDriver
from tf_agents.environments.py_environment import PyEnvironment
from tf_agents.environments.tf_py_environment import TFPyEnvironment
from tf_agents.networks.actor_distribution_network import ActorDistributionNetwork
from tf_agents.networks.value_network import ValueNetwork
from tf_agents.replay_buffers.tf_uniform_replay_buffer import TFUniformReplayBuffer
from tf_agents.specs import ArraySpec, BoundedArraySpec
from tf_agents.trajectories.time_step import StepType, TimeStep

from field.job import HIDDEN_SIZES
from field.vector import make_vector


class Environments(PyEnvironment):
    """Gymnasium's vector environments: TF-Agents' own wrapper is for Gym.

    Both reset in the step after an episode's end, whose action they ignore.
    """

    batched, batch_size = True, None

    def __init__(self, envs):
        super().__init__()
        self.envs, self.batch_size = envs, envs.num_envs
        space = envs.single_action_space
        low, high = (0, space.n - 1) if isinstance(space, Discrete) else (space.low, space.high)
        self._actions = BoundedArraySpec(space.shape, space.dtype, low, high)
        self.done = np.zeros(self.batch_size, bool)

    def action_spec(self):
        """Returns the spec of an action."""
        return self._actions

    def observation_spec(self):
        """Returns the spec of an observation."""
        return ArraySpec(self.envs.single_observation_space.shape, np.float32)

    def _reset(self):
        observations, _ = self.envs.reset()
        first = np.full(self.batch_size, StepType.FIRST)
        ones, zeros = np.ones(self.batch_size, np.float32), np.zeros(self.batch_size, np.float32)
        return TimeStep(first, zeros, ones, observations.astype(np.float32))

    def _step(self, action):
        observations, rewards, terminated, truncated, _ = self.envs.step(action)
        begun, self.done = self.done, terminated | truncated
        kinds = np.where(begun, StepType.FIRST, np.where(self.done, StepType.LAST, StepType.MID))
        discounts = 1.0 - terminated.astype(np.float32)
        arrays = (kinds.astype(np.int32), rewards.astype(np.float32), discounts)
        return TimeStep(*arrays, observations.astype(np.float32))


def train(job, clock):
    """Trains. An iteration's last row only bootstraps; the next iteration begins with it."""
    tf.config.threading.set_intra_op_parallelism_threads(job.options["threads"])
    envs = TFPyEnvironment(Environments(make_vector(job)))
    agent = make_agent(envs)
    rows = TFUniformReplayBuffer(
        agent.collect_data_spec, batch_size=job.num_envs, max_length=job.horizon + 1
    )
    update = make_update(agent, job)
    collect_first, collect = (
        tf.function(
            DynamicStepDriver(
                envs, agent.collect_policy, observers=[rows.add_batch], num_steps=steps
            ).run
        )
        for steps in (job.num_envs, job.steps)
    )
    collect_first()
    for _ in range(job.all_iterations):
        collect()
        update(rows.gather_all())
        clock.tick()


def make_agent(envs):
    """Returns PPO with a clipped objective, one gradient step for each call of `train`."""
    networks = {"fc_layer_params": HIDDEN_SIZES, "activation_fn": tf.keras.activations.tanh}
    agent = PPOClipAgent(
        envs.time_step_spec(),
        envs.action_spec(),
        optimizer=tf.keras.optimizers.Adam(3e-4),
        actor_net=ActorDistributionNetwork(envs.observation_spec(), envs.action_spec(), **networks),
        value_net=ValueNetwork(envs.observation_spec(), **networks),
        importance_ratio_clipping=0.2,
        gradient_clipping=0.5,
        use_gae=True,
        use_td_lambda_return=True,
        num_epochs=1,
        normalize_observations=False,
        normalize_rewards=False,
        compute_value_and_advantage_in_train=False,
        update_normalizers_in_train=False,
    )
    agent.initialize()
    return agent


def make_update(agent, job):
    """Returns one compiled function of all epochs and minibatches."""

    def flatten(x):
        return tf.reshape(x[:, :-1], tf.concat([[job.steps, 1], tf.shape(x)[2:]], 0))

    @tf.function
    def update(rows):
        rows = tf.nest.map_structure(flatten, agent.preprocess_sequence(rows))
        for _ in tf.range(job.epochs):
            order = tf.random.shuffle(tf.range(job.steps))
            for batch in tf.reshape(order, [job.minibatches, job.minibatch]):
                agent.train(tf.nest.map_structure(lambda x: tf.gather(x, batch), rows))  # noqa: B023

    return update
