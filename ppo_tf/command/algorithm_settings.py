"""Declarations of how it learns: advantages, losses, updates."""

from __future__ import annotations

from ppo_tf.command.declarations import Choice, Declaration

# Unless noted otherwise, defaults are from Schulman et al. 2017 (arXiv 1707.06347), Table 3, or
# from "The 37 implementation details of PPO" (ICLR blog 2022).

_CLIPS = ("clip", "clip_kl_penalty", "spo")
_PENALTIES = ("kl_penalty", "clip_kl_penalty")
_SCHEDULES = (
    Choice("constant", "stays the same"),
    Choice("linear", "falls linearly to 0", "linear_schedule"),
    Choice("cosine", "falls to 0 like half a cosine"),
)

ADVANTAGES: tuple[Declaration, ...] = (
    Declaration(
        "estimator",
        str,
        "gae",
        "Advantage estimator.",
        choices=(
            Choice("gae", "generalised advantage estimation (Schulman et al. 2016)", "GAE"),
            Choice("n_step", "n_step rewards, then the critic's value", "NStep"),
            Choice("reward_to_go", "the sum of all future rewards", "RewardToGo"),
            Choice(
                "trajectory_return",
                "the sum of all rewards of the episode, past ones too",
                "TrajectoryReturn",
            ),
            Choice(
                "vtrace",
                "GAE for rewards that another policy earned (Espeholt et al. 2018)",
                "VTrace",
            ),
        ),
    ),
    Declaration(
        "n_step",
        int,
        5,
        "Number of rewards that are summed before the critic's value.",
        least=1,
        only_with={"estimator": ("n_step",)},
    ),
    Declaration("gamma", float, 0.99, "Discount factor per step, 0 to 1.", least=0, most=1),
    Declaration(
        "gae_lambda",
        float,
        0.95,
        "Lambda of GAE and V-trace, the weight of longer returns, 0 to 1.",
        least=0,
        most=1,
        only_with={"estimator": ("gae", "vtrace")},
    ),
    Declaration(
        "baseline",
        bool,
        True,
        "Whether the critic's value is subtracted from the sum of rewards.",
        only_with={"estimator": ("reward_to_go",)},
    ),
)

LOSSES: tuple[Declaration, ...] = (
    Declaration(
        "loss",
        str,
        "clip",
        "Policy loss.",
        choices=(
            Choice("clip", "PPO's clipped surrogate", "Clip"),
            Choice("kl_penalty", "PPO's surrogate with a KL penalty", "KLPenalty"),
            Choice("clip_kl_penalty", "the clipped surrogate with a KL penalty", "KLPenalty"),
            Choice("spo", "a parabola instead of the clip (Xie et al. 2024)", "SPO"),
            Choice("surrogate", "the ratio times the advantage, unrestrained", "Surrogate"),
            Choice("policy_gradient", "the policy gradient, without a ratio", "PolicyGradient"),
        ),
    ),
    Declaration(
        "clip_epsilon",
        float,
        0.2,
        "How far a clipped loss lets the probability ratio, or the value, move.",
        above=0,
        only_with={"loss": _CLIPS, "value_loss": ("clipped",)},
    ),
    Declaration(
        "clip_schedule",
        str,
        "constant",
        "How clip_epsilon changes over the run.",
        choices=_SCHEDULES,
        only_with={"loss": _CLIPS, "value_loss": ("clipped",)},
    ),
    Declaration(
        "clip_around",
        str,
        "recent",
        "Around which policy the clip lies for steps that an older one took, with staleness or "
        "reuse.",
        choices=(
            Choice("recent", "the policy before the update, whichever acted"),
            Choice("behaviour", "the policy that acted"),
        ),
        only_with={"loss": ("clip", "clip_kl_penalty")},
    ),
    Declaration(
        "kl_coefficient",
        float,
        1.0,
        "Weight of the KL divergence, per nat.",
        least=0,
        only_with={"loss": _PENALTIES},
    ),
    Declaration(
        "kl_estimate",
        str,
        "exact",
        "How the penalty computes the KL divergence.",
        choices=(
            Choice("exact", "by the distribution's formula"),
            Choice("k1", "minus the log-ratio of the actions, unbiased, noisy"),
            Choice("k2", "half its square, biased, little noise"),
            Choice("k3", "ratio - 1 - log-ratio, unbiased, little noise"),
        ),
        only_with={"loss": _PENALTIES},
    ),
    Declaration(
        "kl_target",
        float,
        None,
        "Target KL divergence per update for adapting kl_coefficient, nats.",
        above=0,
        optional=True,
        only_with={"loss": _PENALTIES},
    ),
    Declaration(
        "entropy_coefficient", float, 0.0, "Weight of the entropy bonus, per nat.", least=0
    ),
    Declaration(
        "entropy_schedule",
        str,
        "constant",
        "How entropy_coefficient changes over the run.",
        choices=_SCHEDULES,
        unless={"entropy_coefficient": 0.0},
    ),
    Declaration(
        "value_loss",
        str,
        "squared",
        "Loss of the critic.",
        choices=(
            Choice("squared", "the squared error", "SquaredError"),
            Choice("clipped", "the squared error with Baselines' value clip", "ClippedError"),
            Choice("huber", "squared near the target, linear far from it (Huber 1964)", "Huber"),
        ),
    ),
    Declaration("value_coefficient", float, 0.5, "Weight of the critic's loss.", least=0),
)

UPDATES: tuple[Declaration, ...] = (
    Declaration(
        "update_rule",
        str,
        "minibatch",
        "How the policy improves on a batch.",
        choices=(
            Choice("minibatch", "gradient steps over shuffled minibatches", "MinibatchUpdate"),
            Choice("npg", "one step of the natural policy gradient", "TrustRegionUpdate"),
            Choice("trpo", "that step, searched for KL and gain (TRPO)", "TrustRegionUpdate"),
        ),
    ),
    Declaration(
        "trust_region",
        float,
        0.01,
        "Largest mean KL divergence of a step of the policy, nats.",
        above=0,
        only_with={"update_rule": ("npg", "trpo")},
    ),
    Declaration(
        "reuse",
        int,
        1,
        "Rollouts to learn from: the newest and, weighted, those before it.",
        least=1,
        most=1000,
    ),
    Declaration(
        "learning_rate",
        float,
        3e-4,
        "Initial learning rate of Adam.",
        above=0,
        most=1,
    ),
    Declaration(
        "learning_rate_schedule",
        str,
        "linear",
        "How the learning rate changes over the run.",
        choices=_SCHEDULES,
    ),
    Declaration(
        "max_gradient_norm", float, 0.5, "Global norm to which gradients are clipped.", above=0
    ),
    Declaration(
        "epochs",
        int,
        10,
        "Number of passes over the data per update.",
        least=1,
        most=2**31 - 1,
    ),
    Declaration(
        "minibatch_size",
        int,
        64,
        "Samples per gradient step; must divide horizon * num_envs.",
        least=1,
    ),
    Declaration(
        "early_stopping_kl",
        float,
        None,
        "KL divergence above which an update stops early, nats.",
        above=0,
        optional=True,
        only_with={"update_rule": ("minibatch",)},
    ),
    Declaration(
        "recompute_advantages",
        bool,
        False,
        "Whether to recompute advantages before each epoch.",
        unless={"epochs": 1},
    ),
    Declaration(
        "standardize_advantages",
        str,
        "minibatch",
        "Where advantages are scaled to mean 0 and standard deviation 1.",
        choices=(
            Choice("minibatch", "in each minibatch"),
            Choice("batch", "in the whole batch, once"),
            Choice("off", "nowhere"),
        ),
    ),
    Declaration(
        "reward_scaling",
        bool,
        True,
        "Whether to divide rewards by the running std of returns.",
    ),
)
