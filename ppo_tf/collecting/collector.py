"""From an environment to trajectories, in this process."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium

from ppo_tf.collecting.checks import mask_sizes
from ppo_tf.collecting.crew_collector import CrewCollector
from ppo_tf.collecting.stepper import Rollout
from ppo_tf.collecting.workers.crew import Crew
from ppo_tf.collecting.workers.handles import LocalHandle
from ppo_tf.collecting.workers.worker import Duty, MakePart
from ppo_tf.policies.acting import EngineName, make_acting
from ppo_tf.policies.policy import Policy
from ppo_tf.spaces.masks import MASK_KEY
from ppo_tf.support.checks import check_at_least_one


class VectorCollector(CrewCollector):
    """Steps a Gymnasium vector environment with a policy; episodes run on across rollouts.

    The three auto-reset modes give the same transitions. NEXT_STEP costs one row per episode, in
    which the environment ignores the action and resets: it is marked as not valid.

    Args:
        envs: the environments; their metadata say the auto-reset mode.
        policy: what acts.
        horizon: steps per environment and rollout.
        seed: seed of the actions.
        iterations: rollouts collected before with this seed; their noise is not drawn again.
        acting: which engine computes the actions, see `acting.make_acting`.
        mask_key: key of invalid-action masks in the observations, see `masks`.
        log_probs: whether trajectories say how probable their actions were, for estimators that
            need it, such as `VTrace`.
        remake: function of (0, num_envs) that makes the same environments with the same seeds
            again, when one of them has failed; None: a failure is raised at once. New ones repeat
            the actions since the last boundary, see `workers.crew.Crew`.
        max_restarts: how often in a row that is done before the failure is raised.

    Attributes:
        acting: the policy with its engine; its `description` says which engine and why.

    Raises:
        ValueError: an argument out of range, or an environment that does not say how it resets.
    """

    def __init__(
        self,
        envs: gymnasium.vector.VectorEnv,
        policy: Policy,
        horizon: int,
        *,
        seed: int = 0,
        iterations: int = 0,
        acting: EngineName = "auto",
        mask_key: str | None = MASK_KEY,
        log_probs: bool = False,
        remake: MakePart | None = None,
        max_restarts: int = 3,
    ):
        check_at_least_one(horizon=horizon)
        mask_sizes(envs, mask_key)  # raises if a mask fits no action
        self.acting = make_acting(policy, envs, acting)
        made = [envs]

        def make(first: int, count: int) -> gymnasium.vector.VectorEnv:
            return made.pop() if made or remake is None else remake(first, count)

        crew = Crew(
            lambda first, count: LocalHandle(make, first, count),
            *(1, envs.num_envs, max_restarts if remake else 0),
        )
        duty = Duty(None, horizon, policy.recurrent, mask_key)
        crew.prepare("take_over", self.acting.engine, duty, remake is not None)
        super().__init__(
            *(crew, policy, self.acting.step, horizon),
            seed=seed,
            iterations=iterations,
            log_probs=log_probs,
        )

    def _joined(self, parts: Sequence[Rollout]) -> Rollout:
        return parts[0]

    @property
    def envs(self) -> gymnasium.vector.VectorEnv:
        """The environments, which may have been made again."""
        envs: gymnasium.vector.VectorEnv = self.crew.places[0].handle.worker.envs
        return envs
