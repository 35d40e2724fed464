"""The collector that has workers collect in parallel."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.vector.utils import batch_space

from ppo_tf.collecting.checks import mask_sizes
from ppo_tf.collecting.crew_collector import CrewCollector
from ppo_tf.collecting.workers.envs import WorkerEnvs
from ppo_tf.collecting.workers.worker import Duty
from ppo_tf.policies.acting import EngineName, make_engine_model
from ppo_tf.policies.policy import Policy
from ppo_tf.policies.policy_step import PolicyStep
from ppo_tf.spaces.masks import MASK_KEY
from ppo_tf.support.checks import check_at_least_one


class ParallelCollector(CrewCollector):
    """Has workers collect whole rollouts in parallel, each in its share of the environments.

    What an environment sees does not depend on the number of workers, where its back end has a
    random stream for each environment and each worker has at least two: LiteRT multiplies a single
    row in another order.

    A worker that is killed, hangs or has a failing environment is replaced, and the run goes on as
    if nothing had happened, see `workers.crew.Crew`.

    Args:
        envs: the environments, see `make_worker_envs`.
        policy: what acts.
        horizon: steps per environment and rollout.
        seed, iterations, acting, mask_key, log_probs: as of `VectorCollector`.
        staleness: 0 or 1, how many updates old the weights are that act. With 1, workers collect
            while the learner learns; trajectories then have log-probabilities.

    Attributes:
        envs: as given.
        description: which engine acts, and why.

    Raises:
        ValueError: an argument is out of range, or staleness with a memory.
    """

    def __init__(
        self,
        envs: WorkerEnvs,
        policy: Policy,
        horizon: int,
        *,
        seed: int = 0,
        iterations: int = 0,
        acting: EngineName = "auto",
        mask_key: str | None = MASK_KEY,
        log_probs: bool = False,
        staleness: int = 0,
    ):
        check_at_least_one(horizon=horizon)
        if staleness not in (0, 1):
            raise ValueError(f"staleness must be 0 or 1. Received: staleness={staleness}")
        if staleness and policy.recurrent:
            raise ValueError(
                "staleness cannot be combined with a memory, whose states would be those of other "
                f"weights. Received: staleness={staleness}"
            )
        self.envs = envs
        mask_sizes(envs, mask_key)  # raises if a mask fits no action
        model, self.description = make_engine_model(policy, _Share(envs), acting)
        envs.crew.prepare("prepare", Duty(model, horizon, policy.recurrent, mask_key))
        super().__init__(
            *(envs.crew, policy, PolicyStep(policy, envs), horizon),
            seed=seed,
            iterations=iterations,
            log_probs=log_probs,
            staleness=staleness,
        )


class _Share(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """One worker's share of the environments, for the shapes of its batches."""

    def __init__(self, envs: WorkerEnvs):
        self.num_envs = envs.num_envs // len(envs.crew.places)
        self.single_observation_space = envs.single_observation_space
        self.single_action_space = envs.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.metadata = envs.metadata
