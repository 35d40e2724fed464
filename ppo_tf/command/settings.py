"""The settings of a training run, each declared once.

Flags, `--help`, the check of presets and of config.json, the list of what there is and
docs/settings.md are derived from these declarations. What is tuned per environment: `presets`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from ppo_tf.command.declarations import Choice, Declaration

# Where no source is given, a default is from Schulman et al. 2017 (arXiv 1707.06347), Table 3, or
# from "The 37 implementation details of PPO" (ICLR blog 2022).
GROUPS: dict[str, tuple[Declaration, ...]] = {
    "Collecting": (
        Declaration("num_envs", int, 8, "Environments side by side, count.", least=1),
        Declaration(
            "backend",
            str,
            "auto",
            "How environments are stepped.",
            choices=(
                Choice("auto", "the fastest that is installed and pays for so many environments"),
                Choice("sync", "one environment after the other"),
                Choice("async", "each environment in a process of its own"),
                Choice("vector", "the environment's own vector class, which steps all at once"),
                Choice("envpool", "EnvPool's C++ version of the environment, stepped by threads"),
            ),
        ),
        Declaration(
            "acting",
            str,
            "auto",
            "What computes the actions.",
            choices=(
                Choice("auto", "litert where it can serve the policy, but not for convolutions"),
                Choice("litert", "the policy converted to LiteRT, on one thread"),
                Choice("tensorflow", "one compiled TensorFlow function, which serves any policy"),
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
            "Environment steps between checkpoints; 0: at the end only.",
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
                Choice("n_step", "a sum of n_step rewards, then the critic's value", "NStep"),
                Choice("reward_to_go", "the sum of all rewards to come", "RewardToGo"),
            ),
        ),
        Declaration("n_step", int, 5, "Rewards that estimator=n_step sums, steps.", least=1),
        Declaration("gamma", float, 0.99, "Discount per step, 0 to 1.", least=0, most=1),
        Declaration(
            "gae_lambda",
            float,
            0.95,
            "Weight of longer sums in estimator=gae, 0 to 1.",
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
            "How far loss=clip lets the probability ratio leave 1.",
            above=0,
        ),
        Declaration(
            "kl_coefficient",
            float,
            1.0,
            "Weight of the divergence in loss=kl_penalty, per nat.",
            least=0,
        ),
        Declaration(
            "kl_target",
            float,
            None,
            "Divergence per update that adapts kl_coefficient, nats.",
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
            "Critic's loss.",
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
        Declaration("learning_rate", float, 3e-4, "Adam's step size, at the start.", above=0),
        Declaration(
            "learning_rate_schedule",
            str,
            "linear",
            "What becomes of the step size over the run.",
            choices=(
                Choice("constant", "it stays as it is"),
                Choice("linear", "it falls to 0 in a straight line", "linear_schedule"),
            ),
        ),
        Declaration(
            "max_gradient_norm", float, 0.5, "Bound of the gradients' joint norm.", above=0
        ),
        Declaration("epochs", int, 10, "Passes over the data per update, count.", least=1),
        Declaration(
            "minibatch_size",
            int,
            64,
            "Samples per gradient step; divides horizon * num_envs.",
            least=1,
        ),
        Declaration(
            "early_stopping_kl",
            float,
            None,
            "Divergence that ends an update's epochs early, nats.",
            above=0,
            optional=True,
        ),
        Declaration(
            "recompute_advantages", bool, False, "Whether every epoch estimates advantages anew."
        ),
        Declaration(
            "standardize_advantages",
            bool,
            True,
            "Whether a minibatch's advantages get mean 0, std 1.",
        ),
        Declaration(
            "reward_scaling",
            bool,
            True,
            "Whether rewards are divided by the running std of returns.",
        ),
    ),
    "Networks": (
        Declaration(
            "normalize_observations", bool, True, "Whether models normalise by running statistics."
        ),
        Declaration(
            "hidden_sizes", int, (64, 64), "Units of the hidden layers, comma-separated.", least=1
        ),
        Declaration("activation", str, "tanh", "Activation of the hidden layers, a Keras name."),
        Declaration(
            "image_network",
            str,
            "auto",
            "What images go through first.",
            choices=(
                Choice("auto", "nature; small for images with less than 36 pixels a side"),
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
                Choice("small", "nature's for few pixels, such as grid worlds", "small_cnn"),
            ),
        ),
        Declaration(
            "shared_trunk", bool, False, "Whether actor and critic share all layers but the last."
        ),
        Declaration(
            "cell",
            str,
            "none",
            "Memory behind the hidden layers.",
            choices=(
                Choice("none", "no memory"),
                Choice("lstm", "long short-term memory, Keras' LSTMCell"),
                Choice("gru", "gated recurrent unit, Keras' GRUCell"),
            ),
        ),
        Declaration("cell_units", int, 64, "Units of that memory, count.", least=1),
        Declaration(
            "sequence_length", int, 32, "Steps that gradients reach back in a memory.", least=1
        ),
        Declaration(
            "actor_exclude",
            str,
            (),
            "Keys of the observation that only the critic sees, comma-separated.",
        ),
    ),
    "Actions": (
        Declaration(
            "continuous",
            str,
            "clipped_gaussian",
            "Distribution of Box actions.",
            choices=(
                Choice("clipped_gaussian", "Gaussian, into the Box by clipping"),
                Choice("tanh_gaussian", "Gaussian, into the Box by tanh", "TanhGaussian"),
                Choice("beta", "Betas on (0, 1), into the Box by rescaling", "UnimodalBeta"),
                Choice(
                    "truncated_gaussian",
                    "truncated Gaussians on [-1, 1], into the Box by rescaling",
                    "TruncatedGaussian",
                ),
                Choice(
                    "full_covariance",
                    "Gaussian with all covariances, into the Box by clipping",
                    "FullGaussian",
                ),
                Choice(
                    "gsde",
                    "Gaussian, noise held over steps, into the Box by clipping",
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
            "First standard deviation of a Gaussian, in half action ranges.",
            above=0,
        ),
        Declaration(
            "state_dependent_scale",
            bool,
            False,
            "Whether that deviation is a function of the state.",
        ),
    ),
    "The run": (
        Declaration("seed", int, 0, "Seed of everything random in the run.", least=0),
        Declaration(
            "eval_episodes",
            int,
            100,
            "Episodes of each evaluation at the end, count.",
            least=1,
            may_change=True,
        ),
        Declaration(
            "eval_every",
            int,
            0,
            "Environment steps between evaluations of 10 episodes, by which "
            "LOGDIR/best_policy is chosen; 0: none.",
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
            "Project of Weights & Biases to log to as well.",
            optional=True,
            may_change=True,
        ),
        Declaration(
            "mlflow_experiment",
            str,
            None,
            "Experiment of MLflow to log to as well.",
            optional=True,
            may_change=True,
        ),
        Declaration(
            "jit_compile",
            bool,
            None,
            "Whether XLA compiles the update; none: unless there are images.",
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
    """Returns a setting's value, checked: see `Declaration.check`.

    Raises:
        ValueError: the value does not suit the setting, or there is no such setting.
    """
    if name not in SETTINGS:
        near = difflib.get_close_matches(name, SETTINGS)
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        raise ValueError(f"{name!r} is no setting{hint} Received: {name}={value!r}")
    return SETTINGS[name].check(value)


def check_all(values: Mapping[str, Any]) -> dict[str, Any]:
    """`check` for values by name."""
    return {name: check(name, value) for name, value in values.items()}
