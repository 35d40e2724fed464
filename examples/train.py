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
from ppo_tf.presets import DEFAULTS, resolve

# From the flags' values to components: `s` holds the resolved settings by name.
ESTIMATORS = {
    "gae": lambda s: ppo_tf.GAE(s["gamma"], s["gae_lambda"]),
    "n_step": lambda s: ppo_tf.NStep(s["n_step"], s["gamma"]),
    "reward_to_go": lambda s: ppo_tf.RewardToGo(s["gamma"], s["baseline"]),
}
LOSSES = {
    "clip": lambda s: ppo_tf.Clip(s["clip_epsilon"]),
    "kl_penalty": lambda s: ppo_tf.KLPenalty(s["kl_coefficient"], s["kl_target"]),
    "policy_gradient": lambda s: ppo_tf.PolicyGradient(),
}
VALUE_LOSSES = {
    "squared": lambda s: ppo_tf.SquaredError(),
    "clipped": lambda s: ppo_tf.ClippedError(s["clip_epsilon"]),
    "huber": lambda s: ppo_tf.Huber(),
}

CONTINUOUS = ["clipped_gaussian", "tanh_gaussian", "beta"]
CONTINUOUS += ["truncated_normal", "full_covariance", "gsde"]

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
    "backend": (["auto", "sync", "async", "vector", "envpool"], "How environments are stepped."),
    "acting": (["auto", "litert", "tensorflow"], "What computes the actions."),
    "total_steps": (int, "Environment steps to train for, never exceeded."),
    "horizon": (int, "Steps per environment and iteration (the paper's T)."),
    "estimator": (list(ESTIMATORS), "Advantage estimator."),
    "n_step": (int, "Rewards that --estimator=n_step sums, steps."),
    "gamma": (float, "Discount per step, 0 to 1."),
    "gae_lambda": (float, "Weight of longer sums in --estimator=gae, 0 to 1."),
    "baseline": (bool, "Whether --estimator=reward_to_go subtracts the critic's value."),
    "loss": (list(LOSSES), "Policy loss."),
    "clip_epsilon": (float, "How far --loss=clip lets the probability ratio leave 1."),
    "kl_coefficient": (float, "Weight of the divergence in --loss=kl_penalty, per nat."),
    "kl_target": (float, "Divergence per update that adapts --kl_coefficient, nats."),
    "entropy_coefficient": (float, "Weight of the entropy bonus, per nat."),
    "value_loss": (list(VALUE_LOSSES), "Critic's loss."),
    "value_coefficient": (float, "Weight of the critic's loss."),
    "learning_rate": (float, "Adam's step size, at the start."),
    "learning_rate_schedule": (["constant", "linear"], "Whether it falls to 0 over the run."),
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
    "image_network": (["auto", "nature", "impala", "small"], "What images go through first."),
    "shared_trunk": (bool, "Whether actor and critic share all layers but the last."),
    "cell": (["none", "lstm", "gru"], "Memory behind the hidden layers."),
    "cell_units": (int, "Units of that memory, count."),
    "sequence_length": (int, "Steps that gradients reach back in a memory."),
    "critic_only": (tuple, "Keys of the observation that only the critic sees."),
    "continuous": (CONTINUOUS, "Distribution of Box actions."),
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
        if isinstance(kind, list):
            flags.DEFINE_enum(name, None, kind, text)
        else:
            DEFINE[kind](name, None, text)


define_settings()


def make_models(envs, s):
    """The policy and the critic that the settings ask for."""
    seeds = {"actor": 2 * s["seed"] + 1, "critic": 2 * s["seed"]}
    network = {
        "hidden_sizes": s["hidden_sizes"],
        "activation": s["activation"],
        "normalize": s["normalize_observations"],
        "image_network": s["image_network"],
    }
    scale = {name: s[name] for name in ("initial_scale", "state_dependent_scale")}
    memory = {"cell": s["cell"], "units": s["cell_units"]}
    exclude = {"exclude": s["critic_only"]}
    spec = ppo_tf.action_spec(
        envs.single_action_space, continuous=s["continuous"], sde_period=s["sde_period"]
    )
    if s["shared_trunk"]:
        if s["cell"] != "none" or s["critic_only"]:
            raise ValueError(
                "shared_trunk goes without cell and critic_only. Received: "
                f"cell={s['cell']!r}, critic_only={s['critic_only']}"
            )
        actor, critic = ppo_tf.shared_actor_critic(
            envs, spec, seed=seeds["actor"], **network, **scale
        )
    elif s["cell"] == "none":
        actor = ppo_tf.mlp_actor(envs, spec, seed=seeds["actor"], **network, **scale, **exclude)
        critic = ppo_tf.mlp_critic(envs, seed=seeds["critic"], **network)
    else:
        options = {**network, **memory}
        actor = ppo_tf.recurrent_actor(
            envs, spec, seed=seeds["actor"], **options, **scale, **exclude
        )
        critic = ppo_tf.recurrent_critic(envs, seed=seeds["critic"], **options)
    return ppo_tf.Policy(actor, spec.family, spec.action_map), critic


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
        self.policy, self.critic = make_models(self.envs, s)
        self.learner = ppo_tf.Learner(
            self.policy,
            self.critic,
            ppo_tf.default_optimizer(_learning_rate(s), s["max_gradient_norm"]),
            ESTIMATORS[s["estimator"]](s),
            ppo_tf.Sum([LOSSES[s["loss"]](s), ppo_tf.EntropyBonus(s["entropy_coefficient"])]),
            value_loss=VALUE_LOSSES[s["value_loss"]](s),
            value_coefficient=s["value_coefficient"],
            epochs=s["epochs"],
            minibatch_size=s["minibatch_size"],
            standardize_advantages=s["standardize_advantages"],
            recompute_advantages=s["recompute_advantages"],
            reward_scaling=ppo_tf.RewardScaling(s["gamma"]) if s["scale_rewards"] else None,
            sequence_length=s["sequence_length"],
            target_kl=s["target_kl"],
            jit_compile=s["jit"],
            seed=s["seed"],
        )
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


def _learning_rate(s):
    if s["learning_rate_schedule"] == "constant":
        return s["learning_rate"]
    names = ("total_steps", "horizon", "num_envs", "epochs", "minibatch_size")
    return ppo_tf.linear_schedule(s["learning_rate"], **{name: s[name] for name in names})


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
