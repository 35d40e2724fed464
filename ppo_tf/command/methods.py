"""The methods that a user can name: settings that belong together, for any environment."""

from __future__ import annotations

from typing import Any

from ppo_tf.command.declarations import Choice, Declaration

# One gradient step for each rollout, with advantages as the estimator has them: their mean would be
# a baseline. Rates: the best of three on CartPole-v1, seeds 1000 and 1001.
_ONCE: dict[str, Any] = {
    "loss": "policy_gradient",
    "epochs": 1,
    "standardize_advantages": "off",
}

# {method: its settings}. They come before those of the environment's preset.
METHODS: dict[str, dict[str, Any]] = {
    "ppo": {},
    # Williams 1992, a trajectory of at most 500 steps at a time.
    "reinforce": {
        **_ONCE,
        "estimator": "reward_to_go",
        "baseline": False,
        "num_envs": 1,
        "horizon": 500,
        "minibatch_size": 500,
        "learning_rate": 1e-3,
    },
    # Mnih et al. 2016 (arXiv 1602.01783), synchronous, with a constant number of steps n.
    "actor_critic": {
        **_ONCE,
        "estimator": "n_step",
        "num_envs": 8,
        "horizon": 32,
        "minibatch_size": 256,
        "learning_rate": 3e-3,
    },
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
            Choice("actor_critic", "the same with a critic: n-step advantages of 8 environments"),
            Choice("ppo_penalty", "PPO with an adaptive KL penalty"),
            Choice("npg", "natural policy gradient in a trust region"),
            Choice("trpo", "the same with a line search"),
        ),
    ),
)
