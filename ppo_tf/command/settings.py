"""The settings of a training run, each declared once.

Flags, `--help`, `ppo-tf list`, docs/settings.md and the validation of presets and config.json are
derived from these declarations. The tuned values per environment are in `presets`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from ppo_tf.command.declarations import Choice, Declaration

# Unless noted otherwise, defaults are from Schulman et al. 2017 (arXiv 1707.06347), Table 3, or
# from "The 37 implementation details of PPO" (ICLR blog 2022).
GROUPS: dict[str, tuple[Declaration, ...]] = {
    "Collecting": (
        Declaration(
            "num_envs",
            int,
            8,
            "Number of parallel environments.",
            least=1,
            most=2**16,
        ),
        Declaration(
            "backend",
            str,
            "auto",
            "How environments are stepped.",
            choices=(
                Choice("auto", "the fastest one that is installed and worthwhile for num_envs"),
                Choice("sync", "one environment after another"),
                Choice("async", "each environment in its own process"),
                Choice("vector", "the environment's own vector class, which steps all at once"),
                Choice("envpool", "EnvPool's C++ version of the environment, multithreaded"),
            ),
        ),
        Declaration(
            "acting",
            str,
            "auto",
            "Engine that computes the actions.",
            choices=(
                Choice("auto", "litert if it supports the policy, but not for convolutions"),
                Choice("litert", "the policy converted to LiteRT, on one thread"),
                Choice("tensorflow", "a compiled TensorFlow function, which supports any policy"),
            ),
        ),
        Declaration(
            "total_steps",
            int,
            1_000_000,
            "Environment steps to train for, never exceeded.",
            least=1,
            may_change=True,
        ),
        Declaration(
            "checkpoint_every",
            int,
            100_000,
            "Environment steps between checkpoints; 0: only at the end.",
            least=0,
        ),
        Declaration(
            "horizon", int, 256, "Steps per environment and iteration (the paper's T).", least=1
        ),
    ),
    "Advantages": (
        Declaration(
            "estimator",
            str,
            "gae",
            "Advantage estimator.",
            choices=(
                Choice("gae", "generalised advantage estimation (Schulman et al. 2016)", "GAE"),
                Choice("n_step", "n_step rewards, then the critic's value", "NStep"),
                Choice("reward_to_go", "the sum of all future rewards", "RewardToGo"),
            ),
        ),
        Declaration("n_step", int, 5, "Number of rewards that estimator=n_step sums.", least=1),
        Declaration("gamma", float, 0.99, "Discount factor per step, 0 to 1.", least=0, most=1),
        Declaration(
            "gae_lambda",
            float,
            0.95,
            "Lambda of estimator=gae, the weight of longer returns, 0 to 1.",
            least=0,
            most=1,
        ),
        Declaration(
            "baseline", bool, True, "Whether estimator=reward_to_go subtracts the critic's value."
        ),
    ),
    "Losses": (
        Declaration(
            "loss",
            str,
            "clip",
            "Policy loss.",
            choices=(
                Choice("clip", "PPO's clipped surrogate", "Clip"),
                Choice("kl_penalty", "PPO's surrogate with a KL penalty", "KLPenalty"),
                Choice("policy_gradient", "the policy gradient, without a ratio", "PolicyGradient"),
            ),
        ),
        Declaration(
            "clip_epsilon",
            float,
            0.2,
            "How far loss=clip lets the probability ratio move from 1.",
            above=0,
        ),
        Declaration(
            "kl_coefficient",
            float,
            1.0,
            "Weight of the KL divergence in loss=kl_penalty, per nat.",
            least=0,
        ),
        Declaration(
            "kl_target",
            float,
            None,
            "Target KL divergence per update for adapting kl_coefficient, nats.",
            above=0,
            optional=True,
        ),
        Declaration(
            "entropy_coefficient", float, 0.0, "Weight of the entropy bonus, per nat.", least=0
        ),
        Declaration(
            "value_loss",
            str,
            "squared",
            "Loss of the critic.",
            choices=(
                Choice("squared", "the squared error", "SquaredError"),
                Choice("clipped", "the squared error with Baselines' value clip", "ClippedError"),
                Choice(
                    "huber", "squared near the target, linear far from it (Huber 1964)", "Huber"
                ),
            ),
        ),
        Declaration("value_coefficient", float, 0.5, "Weight of the critic's loss.", least=0),
    ),
    "Updates": (
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
            choices=(
                Choice("constant", "stays the same"),
                Choice("linear", "falls linearly to 0", "linear_schedule"),
            ),
        ),
        Declaration(
            "max_gradient_norm", float, 0.5, "Global norm to which gradients are clipped.", above=0
        ),
        Declaration("epochs", int, 10, "Number of passes over the data per update.", least=1),
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
        ),
        Declaration(
            "recompute_advantages",
            bool,
            False,
            "Whether to recompute advantages before each epoch.",
        ),
        Declaration(
            "standardize_advantages",
            bool,
            True,
            "Whether to scale advantages to mean 0, std 1 per minibatch.",
        ),
        Declaration(
            "reward_scaling",
            bool,
            True,
            "Whether to divide rewards by the running std of returns.",
        ),
    ),
    "Networks": (
        Declaration(
            "normalize_observations",
            bool,
            True,
            "Whether models normalise observations by running statistics.",
        ),
        Declaration(
            "hidden_sizes",
            int,
            (64, 64),
            "Units of the hidden layers, comma-separated.",
            least=1,
            most=2**16,
        ),
        Declaration("activation", str, "tanh", "Keras name of the hidden layers' activation."),
        Declaration(
            "image_network",
            str,
            "auto",
            "Network that encodes images.",
            choices=(
                Choice("auto", "nature, or small if a side has fewer than 36 pixels"),
                Choice(
                    "nature",
                    "three convolutions and a dense layer (Mnih et al. 2015)",
                    "nature_cnn",
                ),
                Choice(
                    "impala",
                    "fifteen convolutions with residual connections (Espeholt et al. 2018)",
                    "impala_resnet",
                ),
                Choice("small", "a smaller nature, for images such as grid worlds", "small_cnn"),
            ),
        ),
        Declaration(
            "shared_trunk", bool, False, "Whether actor and critic share all layers but the last."
        ),
        Declaration(
            "cell",
            str,
            "none",
            "Recurrent cell after the hidden layers.",
            choices=(
                Choice("none", "no recurrent cell"),
                Choice("lstm", "long short-term memory, Keras' LSTMCell"),
                Choice("gru", "gated recurrent unit, Keras' GRUCell"),
            ),
        ),
        Declaration("cell_units", int, 64, "Units of the recurrent cell.", least=1, most=2**14),
        Declaration(
            "sequence_length",
            int,
            32,
            "Steps that gradients reach back in recurrent models.",
            least=1,
        ),
        Declaration(
            "actor_exclude",
            str,
            (),
            "Comma-separated keys of the observation that only the critic sees.",
        ),
    ),
    "Actions": (
        Declaration(
            "continuous",
            str,
            "clipped_gaussian",
            "Distribution of Box actions.",
            choices=(
                Choice("clipped_gaussian", "Gaussian, clipped to the Box"),
                Choice("tanh_gaussian", "Gaussian, squashed into the Box by tanh", "TanhGaussian"),
                Choice("beta", "beta on (0, 1), rescaled to the Box", "UnimodalBeta"),
                Choice(
                    "truncated_gaussian",
                    "truncated Gaussian on [-1, 1], rescaled to the Box",
                    "TruncatedGaussian",
                ),
                Choice(
                    "full_covariance",
                    "Gaussian with full covariance, clipped to the Box",
                    "FullGaussian",
                ),
                Choice(
                    "gsde",
                    "Gaussian, noise held for several steps, clipped to the Box",
                    "StateDependentExploration",
                ),
            ),
        ),
        Declaration(
            "sde_period", int, 4, "Steps for which continuous=gsde holds its noise.", least=1
        ),
        Declaration(
            "initial_scale",
            float,
            1.0,
            "Initial standard deviation of a Gaussian, in half action ranges.",
            above=0,
        ),
        Declaration(
            "state_dependent_scale",
            bool,
            False,
            "Whether the standard deviation depends on the state.",
        ),
    ),
    "Run": (
        Declaration(
            "seed",
            int,
            0,
            "Seed of all random numbers in the run.",
            least=0,
            most=2**31 - 1,
        ),
        Declaration(
            "eval_episodes",
            int,
            100,
            "Number of episodes in each final evaluation.",
            least=1,
            may_change=True,
        ),
        Declaration(
            "eval_every",
            int,
            0,
            "Environment steps between evaluations of 10 episodes, which "
            "select LOGDIR/best_policy; 0: none.",
            least=0,
            may_change=True,
        ),
        Declaration(
            "video_every",
            int,
            0,
            "Environment steps between videos in LOGDIR/videos; 0: none.",
            least=0,
            may_change=True,
        ),
        Declaration(
            "wandb_project",
            str,
            None,
            "Weights & Biases project to log to as well.",
            optional=True,
            may_change=True,
        ),
        Declaration(
            "mlflow_experiment",
            str,
            None,
            "MLflow experiment to log to as well.",
            optional=True,
            may_change=True,
        ),
        Declaration(
            "jit_compile",
            bool,
            None,
            "Whether XLA compiles the update; none: yes, unless there are images.",
            optional=True,
        ),
    ),
}

SETTINGS: dict[str, Declaration] = {d.name: d for group in GROUPS.values() for d in group}
DEFAULTS: dict[str, Any] = {name: d.default for name, d in SETTINGS.items()}
CHOICES: dict[str, tuple[str, ...]] = {
    name: tuple(choice.name for choice in d.choices) for name, d in SETTINGS.items() if d.choices
}
MAY_CHANGE: tuple[str, ...] = tuple(name for name, d in SETTINGS.items() if d.may_change)


def check(name: str, value: Any) -> Any:
    """Returns the checked value of a setting; see `Declaration.check`.

    Raises:
        ValueError: the value is invalid, or there is no such setting.
    """
    if name not in SETTINGS:
        near = difflib.get_close_matches(name, SETTINGS)
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        raise ValueError(f"{name!r} is not a setting{hint} Received: {name}={value!r}")
    return SETTINGS[name].check(value)


def check_all(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values by name, checked; see `check`."""
    return {name: check(name, value) for name, value in values.items()}
