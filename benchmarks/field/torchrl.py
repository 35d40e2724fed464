"""TorchRL, put together as in its own PPO example for MuJoCo."""

import gymnasium
import torch
from gymnasium.vector import AutoresetMode
from tensordict.nn import AddStateIndependentNormalScale, TensorDictModule
from torch.distributions import Categorical
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, SamplerWithoutReplacement, TensorDictReplayBuffer
from torchrl.envs import DoubleToFloat, GymEnv, GymWrapper, ParallelEnv, SerialEnv, TransformedEnv
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from field.job import HIDDEN_SIZES
from field.vector import make_vector

KINDS = {"in turn": SerialEnv, "processes": ParallelEnv}


def train(job, clock):
    """Trains."""
    envs = TransformedEnv(make_envs(job), DoubleToFloat())
    actor, critic = make_models(gymnasium.make(job.env))
    compiled = job.options["compile"]
    collector = Collector(
        envs,
        actor,
        frames_per_batch=job.steps,
        total_frames=job.steps * job.all_iterations,
        compile_policy=compiled,
    )
    advantage = GAE(gamma=0.99, lmbda=0.95, value_network=critic)
    loss = ClipPPOLoss(actor, critic, clip_epsilon=0.2, normalize_advantage=True)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-4)
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(job.steps),
        sampler=SamplerWithoutReplacement(),
        batch_size=job.minibatch,
    )

    def update(batch):
        optimizer.zero_grad(set_to_none=True)
        losses = loss(batch)
        (losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]).backward()
        torch.nn.utils.clip_grad_norm_(loss.parameters(), 0.5)
        optimizer.step()

    if compiled:
        update, advantage = torch.compile(update), torch.compile(advantage)
    for data in collector:
        with torch.no_grad():
            data = advantage(data)
        buffer.empty()
        buffer.extend(data.reshape(-1))
        for _ in range(job.epochs):
            for batch in buffer:
                update(batch)
        clock.tick()
    collector.shutdown()


def make_envs(job):
    """Returns the environments, in a vector class of Gymnasium or of its own."""

    def make():
        return GymEnv(job.env, categorical_action_encoding=True)

    if job.options["vector"] in ("sync", "async"):
        envs = make_vector(job, autoreset_mode=AutoresetMode.SAME_STEP)
        return GymWrapper(envs, categorical_action_encoding=True)
    return KINDS[job.options["vector"]](job.num_envs, make)


def make_models(env):
    """Returns actor and critic."""
    inputs = env.observation_space.shape[0]
    networks = {"num_cells": list(HIDDEN_SIZES), "activation_class": torch.nn.Tanh}
    critic = ValueOperator(
        MLP(in_features=inputs, out_features=1, **networks), in_keys=["observation"]
    )
    space = env.action_space
    if isinstance(space, gymnasium.spaces.Discrete):
        network, keys = MLP(in_features=inputs, out_features=int(space.n), **networks), ["logits"]
        distribution, arguments = Categorical, {}
    else:
        size = space.shape[0]
        mean = MLP(in_features=inputs, out_features=size, **networks)
        network = torch.nn.Sequential(mean, AddStateIndependentNormalScale(size))
        keys, distribution = ["loc", "scale"], TanhNormal
        arguments = {"low": torch.as_tensor(space.low), "high": torch.as_tensor(space.high)}
    actor = ProbabilisticActor(
        TensorDictModule(network, in_keys=["observation"], out_keys=keys),
        in_keys=keys,
        distribution_class=distribution,
        distribution_kwargs=arguments,
        return_log_prob=True,
    )
    return actor, critic
