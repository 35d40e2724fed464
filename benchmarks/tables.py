"""The learning tables: environments x settings x seeds, for benchmarks/learning.py.

Settings are those of the training command, by name; what a row leaves out comes from the
environment's preset. Presets are tuned on seeds from 1000 on and reported on seeds from 0 on.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Table(NamedTuple):
    """A learning table.

    Attributes:
        envs: Gymnasium ids.
        settings: {label: {setting: value}}, a row or curve each.
        seeds: number of seeds.
        first_seed: the first of them.
        shared: settings of every run.

    A value that is a dict is {environment: value}.
    """

    envs: Sequence[str]
    settings: Mapping[str, Mapping[str, Any]]
    seeds: int
    first_seed: int = 0
    shared: Mapping[str, Any] = {"checkpoint_minutes": 0.0}  # so that runs can be repeated

    def settings_of(self, env: str, label: str) -> dict[str, Any]:
        """Returns the settings of a run."""
        settings = {**self.shared, **self.settings[label]}
        return {
            name: value[env] if isinstance(value, dict) else value
            for name, value in settings.items()
        }


PRESET: Mapping[str, Mapping[str, Any]] = {"preset": {}}

LOCOMOTION = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Swimmer-v5")
MUJOCO = (
    *LOCOMOTION,
    *("Reacher-v5", "InvertedPendulum-v5", "InvertedDoublePendulum-v5", "Humanoid-v5"),
)
CONTROL = (
    *("Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0"),
    *("LunarLander-v3", "LunarLanderContinuous-v3", "BipedalWalker-v3"),
)


def _pairs() -> dict[str, dict[str, Any]]:
    """Every estimator with every loss of the paper."""
    # Policy gradient may use its data once only: fewer steps at a time.
    once = {"epochs": 1, "horizon": 32, "minibatch_size": 64}
    return {
        f"{estimator} {loss}": {"estimator": estimator, "loss": loss}
        | (once if loss == "policy_gradient" else {})
        for estimator in ("gae", "n_step", "reward_to_go")
        for loss in ("clip", "kl_penalty", "policy_gradient")
    }


def _paper() -> dict[str, dict[str, Any]]:
    """The settings of Schulman et al. 2017, Table 1, in its order."""
    settings: dict[str, dict[str, Any]] = {"no clip or penalty": {"loss": "surrogate"}}
    for epsilon in (0.1, 0.2, 0.3):
        settings[f"clip {epsilon}"] = {"loss": "clip", "clip_epsilon": epsilon}
    for target in (0.003, 0.01, 0.03):
        settings[f"adaptive KL {target}"] = {"loss": "kl_penalty", "kl_target": target}
    for beta in (0.3, 1.0, 3.0, 10.0):
        settings[f"fixed KL {beta:g}"] = {"loss": "kl_penalty", "kl_coefficient": beta}
    return settings


def _story() -> dict[str, dict[str, Any]]:
    """From REINFORCE to PPO, each step with what the one before has and one idea more."""
    episode = {"CartPole-v1": 500, "Pendulum-v1": 200}  # longest, steps
    once = {"loss": "policy_gradient", "epochs": 1, "standardize_advantages": "off"}
    alone = {**once, "num_envs": 1, "horizon": episode, "minibatch_size": episode}
    eight = {env: 8 * steps for env, steps in episode.items()}
    parallel = {**once, "num_envs": 8, "horizon": episode, "minibatch_size": eight}
    short = {**once, "num_envs": 8, "horizon": 32, "minibatch_size": 256}
    # The best of three, see story-trials; from the reuse on, the presets' own 1e-3.
    faster, fastest = {"learning_rate": 3e-3}, {"learning_rate": 1e-2}
    mixed = {"learning_rate": {"CartPole-v1": 3e-3, "Pendulum-v1": 1e-2}}
    no_baseline = {"estimator": "reward_to_go", "baseline": False}
    return {
        "REINFORCE": {**alone, "estimator": "trajectory_return", "learning_rate": 1e-3},
        "+ reward-to-go": {**alone, **no_baseline, "learning_rate": 1e-3},
        "+ 8 in parallel": {**parallel, **no_baseline, **fastest},
        "+ baseline": {**parallel, "estimator": "reward_to_go", **fastest},
        "+ n-step": {**short, "estimator": "n_step", **mixed},
        "+ GAE": {**short, "estimator": "gae", **mixed},
        "+ reuse by importance weights": {"loss": "surrogate"},
        "TRPO": {"update_rule": "trpo", "loss": "surrogate", **faster},
        "PPO clip": {"loss": "clip"},
        "PPO KL penalty": {"loss": "kl_penalty", "kl_target": 0.01},
    }


def _story_trials() -> dict[str, dict[str, Any]]:
    """The steps of the story at three learning rates; the presets' own rate is 1e-3."""
    return {
        f"{label} at {rate:g}": {**settings, "learning_rate": rate}
        for label, settings in _story().items()
        for rate in (1e-3, 3e-3, 1e-2)
        if settings.get("epochs") == 1 or label == "TRPO"
    }


_TRPO = {"update_rule": "trpo", "trust_region": 0.04, "learning_rate": 1e-3, "epochs": 20}
_LARGER = {"learning_rate": 1e-3, "minibatch_size": 256}
_RESIDUAL = {"network": "residual", "residual_width": 128}

# What might make MuJoCo's locomotion better: TRPO's settings are those of rl-baselines3-zoo, the
# residual network is as wide or half as wide as RN-D's (arXiv 2601.23075), and reuse halves the
# rollouts, so that an update has as many samples as without (arXiv 2111.00072).
_LOCOMOTION_TRIALS: dict[str, dict[str, Any]] = {
    "rate 3e-4 minibatch 64": {},
    "trpo": _TRPO,
    "trpo gamma 0.9999": {**_TRPO, "gamma": 0.9999},
    "trpo residual 128": {**_TRPO, **_RESIDUAL},
    "trpo scale 1": {**_TRPO, "initial_scale": 1.0},
    "trpo 4096 steps": {**_TRPO, "horizon": 256},
    "residual 128": _RESIDUAL,
    "mlp 256": {"hidden_sizes": (256, 256), "minibatch_size": 128},
    "lambda 0.9": {"gae_lambda": 0.9},
    "rate 1e-3 minibatch 256": _LARGER,
    "gamma 0.9999": {**_LARGER, "gamma": 0.9999},
    "reuse 2": {**_LARGER, "reuse": 2, "horizon": 64},
    "residual 128 minibatch 256": {**_RESIDUAL, **_LARGER},
    "residual 128 minibatch 256 rate 5e-4": {**_RESIDUAL, **_LARGER, "learning_rate": 5e-4},
    "residual 256 minibatch 256": {**_RESIDUAL, **_LARGER, "residual_width": 256},
}

# zoo's settings of BipedalWalker-v3 and smaller rollouts, like MuJoCo's.
_BIPEDAL = {"gamma": 0.999, "clip_epsilon": 0.18}
_BIPEDAL_TRIALS: dict[str, dict[str, Any]] = {
    "zoo": {**_BIPEDAL, "total_steps": 5_000_000, "num_envs": 32, "horizon": 2048},
    "16 x 256": {**_BIPEDAL, "total_steps": 2_000_000, "num_envs": 16, "horizon": 256},
    "16 x 256 rate 1e-3": {
        **_BIPEDAL,
        **_LARGER,
        "total_steps": 2_000_000,
        "num_envs": 16,
        "horizon": 256,
    },
}

TABLES: dict[str, Table] = {
    "cartpole": Table(["CartPole-v1"], PRESET, 10),
    "cartpole-50k": Table(["CartPole-v1"], {"preset": {"total_steps": 50_000}}, 10),
    "pendulum": Table(["Pendulum-v1"], PRESET, 10),
    "pairs": Table(["CartPole-v1"], _pairs(), 3),
    "control": Table(CONTROL, PRESET, 5),
    "story": Table(["CartPole-v1", "Pendulum-v1"], _story(), 10),
    "story-trials": Table(
        ["CartPole-v1", "Pendulum-v1"],
        _story_trials(),
        3,
        first_seed=1000,
        shared={"checkpoint_minutes": 0.0, "eval_episodes": 20},
    ),
    "mujoco": Table(MUJOCO, PRESET, 10),
    "locomotion-trials": Table(
        LOCOMOTION,
        _LOCOMOTION_TRIALS,
        2,
        first_seed=1000,
        shared={
            "eval_episodes": 20,
            "checkpoint_minutes": 0.0,
            "learning_rate": 3e-4,
            "minibatch_size": 64,
        },
    ),
    "bipedal-trials": Table(
        ["BipedalWalker-v3"],
        _BIPEDAL_TRIALS,
        1,
        first_seed=1000,
        shared={
            "eval_episodes": 20,
            "checkpoint_minutes": 0.0,
            "initial_scale": 0.6,
            "recompute_advantages": True,
        },
    ),
    # Table 3 of the paper: one environment, 2048 steps, ten epochs of minibatches of 64, a constant
    # rate of 3e-4. Returns are those of training; the final evaluation is not used.
    "paper": Table(
        [env for env in MUJOCO if env not in ("Ant-v5", "Humanoid-v5")],
        _paper(),
        3,
        shared={
            "total_steps": 1_000_000,
            "num_envs": 1,
            "horizon": 2048,
            "epochs": 10,
            "minibatch_size": 64,
            "learning_rate": 3e-4,
            "learning_rate_schedule": "constant",
            "gamma": 0.99,
            "gae_lambda": 0.95,
            "initial_scale": 1.0,
            "recompute_advantages": False,
            "eval_episodes": 1,
            "checkpoint_minutes": 0.0,
        },
    ),
}
