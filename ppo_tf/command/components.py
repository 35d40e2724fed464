"""Builds components from settings by name.

The settings are declared in `settings`; the tuned values per environment are in `presets`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import keras
import tensorflow as tf

from ppo_tf.actions.specs import action_spec
from ppo_tf.learning.estimators import GAE, NStep, RewardToGo, TrajectoryReturn, VTrace
from ppo_tf.learning.learner import Learner
from ppo_tf.learning.losses import (
    SPO,
    Clip,
    EntropyBonus,
    KLPenalty,
    PolicyGradient,
    Sum,
    Surrogate,
)
from ppo_tf.learning.optimizers import default_optimizer
from ppo_tf.learning.replicas import mirrored, scope_of
from ppo_tf.learning.rewards.scaling import RewardScaling
from ppo_tf.learning.schedules import schedule
from ppo_tf.learning.updates.minibatch import MinibatchUpdate
from ppo_tf.learning.updates.rule import UpdateRule
from ppo_tf.learning.updates.trust_region import TrustRegionUpdate
from ppo_tf.learning.value_losses import ClippedError, Huber, SquaredError
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
    "trajectory_return": lambda s: TrajectoryReturn(s["gamma"]),
    "vtrace": lambda s: VTrace(s["gamma"], s["gae_lambda"]),
}
LOSSES: dict[str, Callable[[Settings], Loss]] = {
    "clip": lambda s: Clip(_epsilon(s), around=s["clip_around"]),
    "kl_penalty": lambda s: _penalty(s, Surrogate()),
    "clip_kl_penalty": lambda s: _penalty(s, Clip(_epsilon(s), around=s["clip_around"])),
    "spo": lambda s: SPO(_epsilon(s)),
    "surrogate": lambda s: Surrogate(),
    "policy_gradient": lambda s: PolicyGradient(),
}
VALUE_LOSSES: dict[str, Callable[[Settings], ValueLoss]] = {
    "squared": lambda s: SquaredError(),
    "clipped": lambda s: ClippedError(_epsilon(s)),
    "huber": lambda s: Huber(),
}

UPDATE_RULES: dict[str, Callable[[Settings], UpdateRule]] = {
    "minibatch": lambda s: MinibatchUpdate(
        s["epochs"], s["minibatch_size"], s["recompute_advantages"], s["early_stopping_kl"]
    ),
    "npg": lambda s: _trust_region(s, line_search=False),
    "trpo": lambda s: _trust_region(s, line_search=True),
}


def learner_from_settings(envs: gymnasium.vector.VectorEnv, settings: Settings) -> Learner:
    """Builds a learner from settings.

    Args:
        envs: vector environment whose spaces the models are built for.
        settings: a value for every setting of `settings.DEFAULTS`, by name.

    Raises:
        ValueError: a value is out of range, or settings are incompatible.
    """
    strategy = mirrored(settings["devices"])
    with scope_of(strategy):
        return _learner(envs, settings, strategy)


def _learner(
    envs: gymnasium.vector.VectorEnv,
    s: Settings,
    strategy: tf.distribute.MirroredStrategy | None,
) -> Learner:
    """Builds the learner, in the scope of its strategy if it has one."""
    policy, critic = _models(envs, s)
    entropy = _scheduled(s, "entropy_coefficient", "entropy_schedule")
    return Learner(
        policy,
        critic,
        default_optimizer(
            _scheduled(s, "learning_rate", "learning_rate_schedule"), s["max_gradient_norm"]
        ),
        ESTIMATORS[s["estimator"]](s),
        Sum([LOSSES[s["loss"]](s), EntropyBonus(entropy)]),
        value_loss=VALUE_LOSSES[s["value_loss"]](s),
        value_coefficient=s["value_coefficient"],
        standardize_advantages=s["standardize_advantages"],
        reward_transformation=RewardScaling(s["gamma"]) if s["reward_scaling"] else None,
        sequence_length=s["sequence_length"],
        reuse=s["reuse"],
        update_rule=UPDATE_RULES[s["update_rule"]](s),
        jit_compile=s["jit_compile"],
        strategy=strategy,
        seed=s["seed"],
    )


def _models(envs: gymnasium.vector.VectorEnv, s: Settings) -> tuple[Policy, keras.Model]:
    """Builds the policy and the critic."""
    seeds = {"actor": 2 * s["seed"] + 1, "critic": 2 * s["seed"]}
    network = {
        "network": s["network"],
        "residual_width": s["residual_width"],
        "residual_blocks": s["residual_blocks"],
        "hidden_sizes": s["hidden_sizes"],
        "activation": s["activation"],
        "normalize": s["normalize_observations"],
        "image_network": s["image_network"],
    }
    of_critic = {**network, "network": s["critic_network"]}
    memory = {"cell": s["cell"], "units": s["cell_units"]}
    exclude = {"exclude": s["actor_exclude"]}
    spec = action_spec(
        envs.single_action_space,
        continuous=s["continuous"],
        sde_period=s["sde_period"],
        bins=s["bins"],
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
        critic = mlp_critic(envs, seed=seeds["critic"], **of_critic)
    else:
        actor = recurrent_actor(
            envs, spec, seed=seeds["actor"], **network, **memory, **scale, **exclude
        )
        critic = recurrent_critic(envs, seed=seeds["critic"], **of_critic, **memory)
    return Policy(actor, spec.family, spec.action_map), critic


def _scheduled(
    s: Settings, name: str, kind: str
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The value of a setting, or its schedule over the gradient steps of the run."""
    sizes = ("total_steps", "horizon", "num_envs", "epochs", "minibatch_size", "reuse")
    return schedule(s[kind], s[name], **{size: s[size] for size in sizes})


def _epsilon(s: Settings) -> Any:
    return _scheduled(s, "clip_epsilon", "clip_schedule")


def _penalty(s: Settings, surrogate: Loss) -> KLPenalty:
    options = {"estimate": s["kl_estimate"], "surrogate": surrogate}
    return KLPenalty(s["kl_coefficient"], s["kl_target"], **options)


def _trust_region(s: Settings, line_search: bool) -> TrustRegionUpdate:
    critic = {name: s[name] for name in ("epochs", "minibatch_size", "recompute_advantages")}
    return TrustRegionUpdate(s["trust_region"], line_search, **critic)
