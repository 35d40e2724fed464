"""Trains PPO on a Gymnasium environment, evaluates the policy and exports it as a SavedModel.

    python examples/train.py --env=Pendulum-v1

Every component is chosen by a flag; a flag left out takes the environment's preset, then the
default.
"""

import json
import platform
import sys
import textwrap
import time
from importlib import metadata
from pathlib import Path

from absl import app, flags, logging

import ppo_tf
from ppo_tf.presets import CHOICES, DEFAULTS, resolve

ENV = flags.DEFINE_string(
    "env", None, "Gymnasium id of the environment, such as Pendulum-v1. Required."
)
LOGDIR = flags.DEFINE_string(
    "logdir", None, "New folder for the run's files (default: runs/ENV-seedSEED-TIME)."
)
EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "New folder for the exported policy (default: LOGDIR/policy)."
)

# Flags that are settings have no value of their own, so that presets apply.
SETTINGS = {
    "num_envs": (int, "Environments side by side, count."),
    "backend": (str, "How environments are stepped."),
    "acting": (str, "What computes the actions."),
    "total_steps": (int, "Environment steps to train for, never exceeded."),
    "horizon": (int, "Steps per environment and iteration (the paper's T)."),
    "estimator": (str, "Advantage estimator."),
    "n_step": (int, "Rewards that --estimator=n_step sums, steps."),
    "gamma": (float, "Discount per step, 0 to 1."),
    "gae_lambda": (float, "Weight of longer sums in --estimator=gae, 0 to 1."),
    "baseline": (bool, "Whether --estimator=reward_to_go subtracts the critic's value."),
    "loss": (str, "Policy loss."),
    "clip_epsilon": (float, "How far --loss=clip lets the probability ratio leave 1."),
    "kl_coefficient": (float, "Weight of the divergence in --loss=kl_penalty, per nat."),
    "kl_target": (float, "Divergence per update that adapts --kl_coefficient, nats."),
    "entropy_coefficient": (float, "Weight of the entropy bonus, per nat."),
    "value_loss": (str, "Critic's loss."),
    "value_coefficient": (float, "Weight of the critic's loss."),
    "learning_rate": (float, "Adam's step size, at the start."),
    "learning_rate_schedule": (str, "Whether it falls to 0 over the run."),
    "max_gradient_norm": (float, "Bound of the gradients' joint norm."),
    "epochs": (int, "Passes over the data per update, count."),
    "minibatch_size": (int, "Samples per gradient step; divides horizon * num_envs."),
    "target_kl": (float, "Divergence that ends an update's epochs early, nats."),
    "recompute_advantages": (bool, "Whether every epoch estimates advantages anew."),
    "standardize_advantages": (bool, "Whether a minibatch's advantages get mean 0, std 1."),
    "scale_rewards": (bool, "Whether rewards are divided by the running std of returns."),
    "normalize_observations": (bool, "Whether models normalise by running statistics."),
    "hidden_sizes": (tuple, "Units of the hidden layers, comma-separated."),
    "activation": (str, "Of the hidden layers, a Keras name."),
    "image_network": (str, "What images go through first."),
    "shared_trunk": (bool, "Whether actor and critic share all layers but the last."),
    "cell": (str, "Memory behind the hidden layers."),
    "cell_units": (int, "Units of that memory, count."),
    "sequence_length": (int, "Steps that gradients reach back in a memory."),
    "critic_only": (tuple, "Keys of the observation that only the critic sees."),
    "continuous": (str, "Distribution of Box actions."),
    "sde_period": (int, "Steps for which --continuous=gsde holds its noise."),
    "initial_scale": (float, "First standard deviation of a Gaussian, in half action ranges."),
    "state_dependent_scale": (bool, "Whether that deviation is a function of the state."),
    "seed": (int, "Of everything random in the run."),
    "eval_episodes": (int, "Episodes of each evaluation at the end, count."),
    "jit": (bool, "Whether XLA compiles the update; none: unless there are images."),
}
DEFINE = {
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_boolean,
    str: flags.DEFINE_string,
    tuple: flags.DEFINE_list,
}


def define_settings():
    """Makes a flag of every setting, its help ending in the default."""
    for name, (kind, text) in SETTINGS.items():
        default = DEFAULTS[name]
        if isinstance(default, tuple):
            default = ",".join(map(str, default))
        default = "none" if default in (None, "") else default
        text = f"{text} (default: {default})"
        if name in CHOICES:
            flags.DEFINE_enum(name, None, CHOICES[name], text)
        else:
            DEFINE[kind](name, None, text)


define_settings()


class Run:
    """What is made before training starts; nothing is written until all of it stands."""

    def __init__(self):
        if ENV.value is None:
            raise ValueError("--env is required, for instance --env=Pendulum-v1.")
        self.env_id = ENV.value
        given = {name: flags.FLAGS[name].value for name in DEFAULTS}
        if given["hidden_sizes"] is not None:
            given["hidden_sizes"] = _sizes(given["hidden_sizes"])
        if given["critic_only"] is not None:
            given["critic_only"] = tuple(given["critic_only"])
        self.settings = resolve(self.env_id, given)
        s = self.values = {name: setting.value for name, setting in self.settings.items()}
        if s["eval_episodes"] < 1:
            raise ValueError(f"eval_episodes must be at least 1. Received: {s['eval_episodes']}")
        name = f"{self.env_id.replace('/', '-')}-seed{s['seed']}-{time.strftime('%Y%m%d-%H%M%S')}"
        self.logdir = ppo_tf.check_new_folder(LOGDIR.value or Path("runs") / name, "logdir")
        self.policy_path = ppo_tf.check_new_folder(
            EXPORT_DIR.value or self.logdir / "policy", "export_dir"
        )
        self.backend, reason = s["backend"], "as asked"
        if self.backend == "auto":
            self.backend, reason = ppo_tf.choose_backend(self.env_id, s["num_envs"])
        self.envs = ppo_tf.make_envs(
            self.env_id, s["num_envs"], seed=s["seed"], backend=self.backend, training=True
        )
        self.learner = ppo_tf.learner_from_settings(self.envs, s)
        self.policy, self.critic = self.learner.policy, self.learner.critic
        self.learner.check_batch(s["horizon"], s["num_envs"])
        self.collector = ppo_tf.VectorCollector(
            self.envs, self.policy, s["horizon"], seed=s["seed"], acting=s["acting"]
        )
        self.engines = {
            "environments": f"{self.backend} ({reason})",
            "acting": self.collector.acting.description,
        }

    def open_folder(self):
        """Makes the log folder with config.json in it."""
        self.logdir.mkdir(parents=True)
        config = {
            "env": self.env_id,
            "seed": self.values["seed"],
            "settings": {name: setting._asdict() for name, setting in self.settings.items()},
            "engines": self.engines,
            "versions": versions(),
        }
        self.write("config.json", config)

    def write(self, name, value):
        """Writes a JSON file into the log folder."""
        (self.logdir / name).write_text(json.dumps(value, indent=2) + "\n")


def _sizes(words):
    try:
        return tuple(int(word) for word in words)
    except ValueError:
        raise ValueError(
            f"hidden_sizes must be whole numbers, such as 64,64. Received: {','.join(words)}"
        ) from None


def versions():
    """Versions of what a run's numbers depend on."""
    packages = ("ppo_tf", "tensorflow", "keras", "tensorflow-probability", "gymnasium", "numpy")
    return {"python": platform.python_version()} | {p: metadata.version(p) for p in packages}


def show(run):
    """Prints the resolved settings, grouped by where they came from, and the engines chosen."""
    print(f"{run.env_id}, ppo_tf {ppo_tf.__version__}")
    for source in ("flag", "preset", "default"):
        items = [f"{name}={s.value}" for name, s in run.settings.items() if s.source == source]
        if items:
            text = " ".join(item.replace(" ", "") for item in items)
            indent = " " * 9
            print(textwrap.fill(f"{source + ':':9}{text}", 100, subsequent_indent=indent))
    for name, engine in run.engines.items():
        print(f"{name}: {engine}")


def train(run):
    """Trains; returns the exit code: 0, 1 after a number that is not finite, 130 after Ctrl-C."""
    import keras

    show(run)
    try:
        ppo_tf.fit(
            run.learner,
            run.collector,
            total_steps=run.values["total_steps"],
            callbacks=[
                keras.callbacks.LambdaCallback(on_train_begin=lambda logs: run.open_folder()),
                ppo_tf.MetricsCSV(run.logdir / "metrics.csv"),
                ppo_tf.TensorBoardScalars(run.logdir),
                ppo_tf.Progress(),
            ],
        )
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except ppo_tf.NonFiniteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        run.envs.close()
    return 0


def evaluate(run):
    """Evaluates the policy, writes evaluation.json and prints the result."""
    s, results = run.values, {}
    for mode in ("deterministic", "sampled"):
        results[mode] = ppo_tf.evaluate(
            run.policy,
            run.env_id,
            episodes=s["eval_episodes"],
            seed=s["seed"],
            deterministic=mode == "deterministic",
        )
    run.write("evaluation.json", {mode: result.summary() for mode, result in results.items()})
    for mode, result in results.items():
        print(
            f"{mode + ' evaluation:':26}return {result.mean:.1f} +- {result.std:.1f} "
            f"over {len(result.returns)} episodes"
        )


def main(argv):
    """Runs everything; returns the exit code."""
    logging.set_verbosity(logging.WARNING)  # TensorFlow's notes on every file it saves
    try:
        if argv[1:]:
            raise ValueError(f"Only flags are taken. Received: {' '.join(argv[1:])}")
        run = Run()
        code = train(run)
    except (ValueError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    ppo_tf.export_policy(
        run.policy, run.policy_path, critic=run.critic, metadata={"env": run.env_id}
    )
    try:
        if code == 0:
            evaluate(run)
    except KeyboardInterrupt:
        code = 130
    except ppo_tf.NonFiniteError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    print(f"policy: {run.policy_path}")
    return code


def parse(argv):
    """Parses the flags; a bad one ends the program with one line."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        print(f"error: {str(error).replace(chr(10), ' ')}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
