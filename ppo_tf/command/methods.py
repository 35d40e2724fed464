"""The methods that a user can name: settings that belong together, for any environment."""

from __future__ import annotations

from typing import Any

from ppo_tf.command.declarations import Choice, Declaration

# One gradient step for each rollout of 8 x 256 steps, with advantages as the estimator has them:
# their mean would be a baseline.
_ONCE: dict[str, Any] = {
    "loss": "policy_gradient",
    "epochs": 1,
    "num_envs": 8,
    "horizon": 256,
    "minibatch_size": 2048,
    "standardize_advantages": "off",
}

# {method: its settings}. They come before those of the environment's preset.
METHODS: dict[str, dict[str, Any]] = {
    "ppo": {},
    "reinforce": {**_ONCE, "estimator": "reward_to_go", "baseline": False},
    # Mnih et al. 2016 (arXiv 1602.01783), synchronous; n-step returns by GAE's weights, so that a
    # step needs no whole episodes.
    "actor_critic": {**_ONCE, "estimator": "gae", "horizon": 32, "minibatch_size": 256},
    # Schulman et al. 2017, section 4.
    "ppo_penalty": {"loss": "kl_penalty", "kl_target": 0.01},
    # Kakade 2001: the trust region gives the length of the step.
    "npg": {"update_rule": "npg", "loss": "surrogate"},
    # Schulman et al. 2015 (arXiv 1502.05477).
    "trpo": {"update_rule": "trpo", "loss": "surrogate"},
}

METHOD: tuple[Declaration, ...] = (
    Declaration(
        "method",
        str,
        "ppo",
        "Settings that make a method; others come from the preset.",
        choices=(
            Choice("ppo", "PPO-clip, with the environment's preset"),
            Choice("reinforce", "policy gradient with reward-to-go, one step per rollout"),
            Choice("actor_critic", "the same with a critic and GAE, on short rollouts"),
            Choice("ppo_penalty", "PPO with an adaptive KL penalty"),
            Choice("npg", "natural policy gradient in a trust region"),
            Choice("trpo", "the same with a line search"),
        ),
    ),
)
