"""Tianshou 2, by its procedural interface."""

from gymnasium import make
from gymnasium.spaces import Discrete
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv, SubprocVectorEnv
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
from tianshou.utils.torch_utils import policy_within_training_step
from torch import nn
from torch.distributions import Categorical, Independent, Normal

from field.job import HIDDEN_SIZES


def train(job, clock):
    """Trains, with the two calls that its trainer makes between tests."""
    kind = SubprocVectorEnv if job.options["vector"] == "processes" else DummyVectorEnv
    envs = kind([lambda: make(job.env)] * job.num_envs)
    algorithm = make_algorithm(envs.observation_space[0], envs.action_space[0])
    buffer = VectorReplayBuffer(job.steps, job.num_envs)
    collector = Collector(algorithm, envs, buffer)
    collector.reset()
    with policy_within_training_step(algorithm.policy):
        for _ in range(job.all_iterations):
            collector.collect(n_step=job.steps)
            algorithm.update(buffer=buffer, batch_size=job.minibatch, repeat=job.epochs)
            collector.reset_buffer(keep_statistics=True)
            clock.tick()


def make_algorithm(observations, actions):
    """Returns PPO with a separate network for actor and critic."""

    def body():
        return Net(state_shape=observations.shape, hidden_sizes=HIDDEN_SIZES, activation=nn.Tanh)

    discrete = isinstance(actions, Discrete)
    if discrete:
        actor = DiscreteActor(
            preprocess_net=body(), action_shape=int(actions.n), softmax_output=False
        )
        critic = DiscreteCritic(preprocess_net=body())
        distribution = lambda logits: Categorical(logits=logits)  # noqa: E731
    else:
        actor = ContinuousActorProbabilistic(
            preprocess_net=body(), action_shape=actions.shape, unbounded=True
        )
        critic = ContinuousCritic(preprocess_net=body())
        distribution = lambda parameters: Independent(Normal(*parameters), 1)  # noqa: E731
    policy = ProbabilisticActorPolicy(
        actor=actor, dist_fn=distribution, action_space=actions, action_scaling=not discrete
    )
    return PPO(policy=policy, critic=critic, optim=AdamOptimizerFactory(lr=3e-4))
