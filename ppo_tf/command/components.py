"""Builds components from settings by name.

The settings are declared in `settings`; the tuned values per environment are in `presets`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import keras

from ppo_tf.actions.specs import action_spec
from ppo_tf.learning.estimators import GAE, NStep, RewardToGo
from ppo_tf.learning.learner import Learner
from ppo_tf.learning.losses import (
    Clip,
    ClippedError,
    EntropyBonus,
    Huber,
    KLPenalty,
    PolicyGradient,
    SquaredError,
    Sum,
)
from ppo_tf.learning.optimizers import default_optimizer, linear_schedule
from ppo_tf.learning.rewards.scaling import RewardScaling
from ppo_tf.networks.heads import has_scale
from ppo_tf.networks.models import mlp_actor, mlp_critic, shared_actor_critic
from ppo_tf.networks.recurrent import recurrent_actor, recurrent_critic
from ppo_tf.policies.policy import Policy
from ppo_tf.types import Estimator, Loss, ValueLoss

Settings = dict[str, Any]

ESTIMATORS: dict[str, Callable[[Settings], Estimator]] = {
    "gae": lambda s: GAE(s["gamma"], s["gae_lambda"]),
    "n_step": lambda s: NStep(s["n_step"], s["gamma"]),
    "reward_to_go": lambda s: RewardToGo(s["gamma"], s["baseline"]),
}
LOSSES: dict[str, Callable[[Settings], Loss]] = {
    "clip": lambda s: Clip(s["clip_epsilon"]),
    "kl_penalty": lambda s: KLPenalty(s["kl_coefficient"], s["kl_target"]),
    "policy_gradient": lambda s: PolicyGradient(),
}
VALUE_LOSSES: dict[str, Callable[[Settings], ValueLoss]] = {
    "squared": lambda s: SquaredError(),
    "clipped": lambda s: ClippedError(s["clip_epsilon"]),
    "huber": lambda s: Huber(),
}


def learner_from_settings(envs: gymnasium.vector.VectorEnv, settings: Settings) -> Learner:
    """Builds a learner from settings.

    Args:
        envs: vector environment whose spaces the models are built for.
        settings: a value for every setting of `settings.DEFAULTS`, by name.

    Raises:
        ValueError: a value is out of range, or settings are incompatible.
    """
    s = settings
    policy, critic = _models(envs, s)
    return Learner(
        policy,
        critic,
        default_optimizer(_learning_rate(s), s["max_gradient_norm"]),
        ESTIMATORS[s["estimator"]](s),
        Sum([LOSSES[s["loss"]](s), EntropyBonus(s["entropy_coefficient"])]),
        value_loss=VALUE_LOSSES[s["value_loss"]](s),
        value_coefficient=s["value_coefficient"],
        epochs=s["epochs"],
        minibatch_size=s["minibatch_size"],
        standardize_advantages=s["standardize_advantages"],
        recompute_advantages=s["recompute_advantages"],
        reward_transformation=RewardScaling(s["gamma"]) if s["reward_scaling"] else None,
        sequence_length=s["sequence_length"],
        early_stopping_kl=s["early_stopping_kl"],
        jit_compile=s["jit_compile"],
        seed=s["seed"],
    )


def _models(envs: gymnasium.vector.VectorEnv, s: Settings) -> tuple[Policy, keras.Model]:
    """Builds the policy and the critic."""
    seeds = {"actor": 2 * s["seed"] + 1, "critic": 2 * s["seed"]}
    network = {
        "hidden_sizes": s["hidden_sizes"],
        "activation": s["activation"],
        "normalize": s["normalize_observations"],
        "image_network": s["image_network"],
    }
    memory = {"cell": s["cell"], "units": s["cell_units"]}
    exclude = {"exclude": s["actor_exclude"]}
    spec = action_spec(
        envs.single_action_space, continuous=s["continuous"], sde_period=s["sde_period"]
    )
    scale = {"state_dependent_scale": s["state_dependent_scale"]}
    if has_scale(spec.parameters):  # presets set it; a flag gets a line, see `effects`
        scale["initial_scale"] = s["initial_scale"]
    if s["shared_trunk"]:
        if s["cell"] != "none" or s["actor_exclude"]:
            raise ValueError(
                "shared_trunk cannot be combined with cell or actor_exclude. Received: "
                f"cell={s['cell']!r}, actor_exclude={s['actor_exclude']}"
            )
        actor, critic = shared_actor_critic(envs, spec, seed=seeds["actor"], **network, **scale)
    elif s["cell"] == "none":
        actor = mlp_actor(envs, spec, seed=seeds["actor"], **network, **scale, **exclude)
        critic = mlp_critic(envs, seed=seeds["critic"], **network)
    else:
        options = {**network, **memory}
        actor = recurrent_actor(envs, spec, seed=seeds["actor"], **options, **scale, **exclude)
        critic = recurrent_critic(envs, seed=seeds["critic"], **options)
    return Policy(actor, spec.family, spec.action_map), critic


def _learning_rate(s: Settings) -> float | keras.optimizers.schedules.LearningRateSchedule:
    if s["learning_rate_schedule"] == "constant":
        return s["learning_rate"]
    names = ("total_steps", "horizon", "num_envs", "epochs", "minibatch_size")
    return linear_schedule(s["learning_rate"], **{name: s[name] for name in names})
