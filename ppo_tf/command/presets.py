"""The tuned settings of each environment, with their sources, and how a run's are resolved.

The settings and their defaults are declared in `settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from ppo_tf.command.methods import METHODS
from ppo_tf.command.settings import DEFAULTS, check_all
from ppo_tf.training.boundaries import default_every

# Like Taxi-v4, with an entropy bonus: rewards are rare at the start.
_FROZEN_LAKE: dict[str, Any] = {
    "total_steps": 200_000,
    "num_envs": 8,
    "horizon": 256,
    "learning_rate": 1e-3,
    "recompute_advantages": True,
    "normalize_observations": False,
    "entropy_coefficient": 0.01,
}

# zoo, including its minibatch of 64; zoo does not normalise, the defaults do.
_LUNAR_LANDER: dict[str, Any] = {
    "total_steps": 1_000_000,
    "num_envs": 16,
    "horizon": 1024,
    "gamma": 0.999,
    "gae_lambda": 0.98,
    "epochs": 4,
    "entropy_coefficient": 0.01,
}

_MUJOCO_IDS = (
    *("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Swimmer-v5", "Humanoid-v5"),
    *("Reacher-v5", "InvertedPendulum-v5", "InvertedDoublePendulum-v5"),
)

# Tianshou's PPO from its MuJoCo benchmark: 2048 steps per collection, an initial standard deviation
# of exp(-0.5) = 0.6, a value loss of 0.25 times the squared error. The defaults give the rest: ten
# epochs of minibatches of 64, 3e-4 falling to 0, normalised observations and scaled returns. 16
# environments work better here than its 64; see BUILD_NOTES.md.
_MUJOCO: dict[str, Any] = {
    "total_steps": 1_000_000,
    "num_envs": 16,
    "horizon": 128,
    "recompute_advantages": True,
    "value_coefficient": 0.25,
    "initial_scale": 0.6,
}

# Where a higher rate on larger minibatches learns more: 5,338 against 4,407 on HalfCheetah-v5 and
# 3,457 against 3,339 on Hopper-v5 (means of seeds 1000 to 1002). Walker2d-v5 and Ant-v5 learn less.
_FASTER: dict[str, Any] = {"learning_rate": 1e-3, "minibatch_size": 256}

# Schulman et al. 2017, Table 5: rate 2.5e-4 falling to 0, clip 0.1 (in the paper it falls with the
# rate; here it is constant, as in CleanRL), entropy 0.01. Epochs, minibatch and the weight of the
# value loss (0.5 times half the squared error) are those of Baselines' PPO2 and CleanRL. The
# environment clips rewards.
_ATARI: dict[str, Any] = {
    "total_steps": 10_000_000,
    "num_envs": 8,
    "horizon": 128,
    "learning_rate": 2.5e-4,
    "clip_epsilon": 0.1,
    "epochs": 4,
    "minibatch_size": 256,
    "value_coefficient": 0.25,
    "entropy_coefficient": 0.01,
    "normalize_observations": False,
    "reward_scaling": False,
    "eval_episodes": 30,  # Mnih et al. 2015
    "image_network": "nature",  # Mnih et al. 2015, divides by 255; its 512 units are the last layer
    "hidden_sizes": (),
    "shared_trunk": True,
    "jit_compile": False,  # XLA's convolutions on CPU are slower than oneDNN's
}

# {environment id: settings}. What an entry leaves out comes from its family below, then from the
# defaults. zoo: rl-baselines3-zoo's hyperparameters for PPO.
PRESETS: dict[str, dict[str, Any]] = {
    # Based on zoo (gamma 0.9, learning rate 1e-3). Tuned here over 10 seeds: more environments with
    # shorter rollouts, gamma 0.95, advantages recomputed, rate falling to 0.
    "Pendulum-v1": {
        "total_steps": 100_000,
        "num_envs": 8,
        "horizon": 256,
        "gamma": 0.95,
        "learning_rate": 1e-3,
        "minibatch_size": 128,
        "recompute_advantages": True,
    },
    # Based on zoo (8 environments, learning rate 1e-3 falling to 0, minibatch 256). Tuned here over
    # 10 seeds: longer rollouts, fewer epochs, advantages recomputed.
    "CartPole-v1": {
        "total_steps": 100_000,
        "num_envs": 8,
        "horizon": 128,
        "learning_rate": 1e-3,
        "minibatch_size": 256,
        "recompute_advantages": True,
    },
    # zoo's batch and lambda; zoo normalises, as the defaults do. Half its steps, a higher rate
    # and more epochs of recomputed advantages.
    "Acrobot-v1": {
        "total_steps": 500_000,
        "num_envs": 16,
        "horizon": 256,
        "gae_lambda": 0.94,
        "learning_rate": 1e-3,
        "minibatch_size": 256,
        "recompute_advantages": True,
    },
    # zoo, which normalises, as the defaults do.
    "MountainCar-v0": {
        "total_steps": 1_000_000,
        "num_envs": 16,
        "horizon": 16,
        "gae_lambda": 0.98,
        "epochs": 4,
    },
    # zoo's gamma, lambda and clip. Its state-dependent exploration is not needed: with a standard
    # deviation of half the range the car finds the flag; five times its 20,000 steps.
    "MountainCarContinuous-v0": {
        "total_steps": 100_000,
        "gamma": 0.9999,
        "gae_lambda": 0.9,
        "clip_epsilon": 0.1,
    },
    "LunarLander-v3": _LUNAR_LANDER,
    "LunarLanderContinuous-v3": _LUNAR_LANDER,
    # zoo's gamma and clip, rollouts and scale of MuJoCo's: 294 on seed 1000 after 2,000,000 steps,
    # where zoo reports 288 after 5,000,000.
    "BipedalWalker-v3": {
        "total_steps": 2_000_000,
        "num_envs": 16,
        "horizon": 256,
        "gamma": 0.999,
        "clip_epsilon": 0.18,
        "recompute_advantages": True,
        "initial_scale": 0.6,
    },
    # Observations are not normalised: each of the 500 one-hot states is rare. The environment masks
    # actions that have no effect; without these masks 500,000 steps did not get above -100.
    "Taxi-v4": {
        "total_steps": 200_000,
        "num_envs": 8,
        "horizon": 128,
        "learning_rate": 1e-3,
        "minibatch_size": 256,
        "recompute_advantages": True,
        "normalize_observations": False,
    },
    # Episodes are short and return -1, 0 or 1, so the mean needs many of them.
    "Blackjack-v1": {
        "total_steps": 200_000,
        "num_envs": 8,
        "horizon": 256,
        "gamma": 1.0,
        "learning_rate": 1e-3,
        "minibatch_size": 256,
        "recompute_advantages": True,
        "normalize_observations": False,
        "entropy_coefficient": 0.01,
        "eval_episodes": 10_000,
    },
    "FrozenLake-v1": _FROZEN_LAKE,
    "FrozenLake8x8-v1": _FROZEN_LAKE,
    # zoo's gamma: the speed is a mean over the whole body wave, to which 0.99 is blind.
    "Swimmer-v5": {"gamma": 0.9999},
    "HalfCheetah-v5": _FASTER,
    "Hopper-v5": _FASTER,
}

# {fnmatch patterns of environment ids: settings}; the first match counts.
FAMILIES: dict[tuple[str, ...], dict[str, Any]] = {
    _MUJOCO_IDS: _MUJOCO,
    ("ALE/*-v5", "*NoFrameskip-v?"): _ATARI,
}


SOURCES = ("flag", "method", "config", "preset", "default")


class Setting(NamedTuple):
    """A resolved value and where it came from, one of `SOURCES`."""

    value: Any
    source: str


def preset_of(env_id: str) -> dict[str, Any]:
    """Returns the tuned settings of an environment: its own, then those of its family.

    Args:
        env_id: Gymnasium id of the environment; a prefix "module:" is ignored.
    """
    name = env_id.rpartition(":")[2]
    fits = (f for ids, f in FAMILIES.items() if any(fnmatchcase(name, i) for i in ids))
    return next(fits, {}) | PRESETS.get(name, {})


def resolve(
    env_id: str, given: Mapping[str, Any], config: Mapping[str, Any] | None = None
) -> dict[str, Setting]:
    """Resolves every setting of a run.

    A value comes from the user, otherwise from the method that the user names, otherwise from the
    run to repeat, otherwise from the environment's preset, otherwise from the defaults. That of
    `checkpoint_every` is computed from `num_envs`.

    Args:
        env_id: Gymnasium id of the environment; a prefix "module:" is ignored.
        given: the user's values by name.
        config: values by name of a run to repeat.

    Raises:
        ValueError: a name is not a setting, or its value is invalid.
    """
    given = check_all(given)
    values_of = (
        given,
        check_all(METHODS[given["method"]]) if "method" in given else {},
        check_all(config or {}),
        check_all(preset_of(env_id)),
        DEFAULTS,
    )
    sources = dict(zip(SOURCES, values_of, strict=True))
    resolved = {
        name: next(Setting(values[name], s) for s, values in sources.items() if name in values)
        for name in DEFAULTS
    }
    every = resolved["checkpoint_every"]
    if every.value is None:
        steps = default_every(resolved["num_envs"].value)
        resolved["checkpoint_every"] = every._replace(value=steps)
    return resolved
