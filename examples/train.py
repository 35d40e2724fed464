"""Trains PPO on a Gymnasium environment, evaluates the policy and exports it as a SavedModel.

    python examples/train.py --env=Pendulum-v1

Every component is chosen by a flag; a flag left out takes the environment's preset, then the
default.
"""

import sys
import textwrap

from absl import app, flags, logging

import ppo_tf
from ppo_tf.command import runs
from ppo_tf.command.presets import CHOICES, DEFAULTS

ENV = flags.DEFINE_string(
    "env", None, "Gymnasium id of the environment, such as Pendulum-v1. Required."
)
LOGDIR = flags.DEFINE_string(
    "logdir", None, "New folder for the run's files (default: runs/ENV-seedSEED-TIME)."
)
RESUME = flags.DEFINE_string(
    "resume",
    None,
    "Folder of a run to go on with; auto: --logdir or, without it, the newest unfinished run of "
    "--env and --seed, if there is one (default: none).",
)
DRY_RUN = flags.DEFINE_boolean(
    "dry_run", False, "Whether to show the settings, models and expected memory only."
)
CONFIG = flags.DEFINE_string(
    "config", None, "A run's config.json, whose settings count unless flags say otherwise."
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
    "checkpoint_every": (int, "Environment steps between checkpoints; 0: at the end only."),
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
    "early_stopping_kl": (float, "Divergence that ends an update's epochs early, nats."),
    "recompute_advantages": (bool, "Whether every epoch estimates advantages anew."),
    "standardize_advantages": (bool, "Whether a minibatch's advantages get mean 0, std 1."),
    "reward_scaling": (bool, "Whether rewards are divided by the running std of returns."),
    "normalize_observations": (bool, "Whether models normalise by running statistics."),
    "hidden_sizes": (tuple, "Units of the hidden layers, comma-separated."),
    "activation": (str, "Of the hidden layers, a Keras name."),
    "image_network": (str, "What images go through first."),
    "shared_trunk": (bool, "Whether actor and critic share all layers but the last."),
    "cell": (str, "Memory behind the hidden layers."),
    "cell_units": (int, "Units of that memory, count."),
    "sequence_length": (int, "Steps that gradients reach back in a memory."),
    "actor_exclude": (tuple, "Keys of the observation that only the critic sees."),
    "continuous": (str, "Distribution of Box actions."),
    "sde_period": (int, "Steps for which --continuous=gsde holds its noise."),
    "initial_scale": (float, "First standard deviation of a Gaussian, in half action ranges."),
    "state_dependent_scale": (bool, "Whether that deviation is a function of the state."),
    "seed": (int, "Of everything random in the run."),
    "eval_episodes": (int, "Episodes of each evaluation at the end, count."),
    "eval_every": (
        int,
        "Environment steps between evaluations of 10 episodes; LOGDIR/best_policy is the best "
        "policy of them; 0: none.",
    ),
    "video_every": (int, "Environment steps between videos in LOGDIR/videos; 0: none."),
    "wandb_project": (str, "Project of Weights & Biases to log to as well."),
    "mlflow_experiment": (str, "Experiment of MLflow to log to as well."),
    "jit_compile": (bool, "Whether XLA compiles the update; none: unless there are images."),
}
LEAST = {"eval_episodes": 1, "checkpoint_every": 0, "eval_every": 0, "video_every": 0}
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


def make_plan():
    """Which run the flags ask for: a new one, or one to go on with."""
    given = {name: flags.FLAGS[name].value for name in DEFAULTS}
    if given["hidden_sizes"] is not None:
        given["hidden_sizes"] = _sizes(given["hidden_sizes"])
    if given["actor_exclude"] is not None:
        given["actor_exclude"] = tuple(given["actor_exclude"])
    return runs.plan(
        ENV.value,
        given,
        logdir=LOGDIR.value,
        export_dir=EXPORT_DIR.value,
        resume=RESUME.value,
        config=CONFIG.value,
    )


class Run:
    """What is made before training starts; nothing is written until all of it stands."""

    def __init__(self, plan):
        self.env_id, self.settings = plan.env_id, plan.settings
        self.logdir, self.export_dir = plan.logdir, plan.export_dir
        self.policy_path, self.resumed = plan.policy_path, plan.resumed
        s = self.values = {name: setting.value for name, setting in self.settings.items()}
        for name, least in LEAST.items():
            if s[name] < least:
                raise ValueError(f"{name} must be at least {least}. Received: {name}={s[name]}")
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
        if self.resumed and self.resumed["engines"] != self.engines:
            raise ValueError(
                f"{self.logdir} went on with {self.resumed['engines']}. Received: {self.engines}"
            )
        self.checkpoints = ppo_tf.Checkpoints(
            self.logdir / "checkpoints",
            every=s["checkpoint_every"],
            monitor="eval/mean_return" if s["eval_every"] else "rollout/episode_return",
            warn=warn,
        )
        self.callbacks = make_callbacks(self)
        if self.resumed:
            self.lock = runs.lock_folder(self.logdir, "resume")

    def open_folder(self):
        """Makes the log folder with config.json in it."""
        if not self.resumed:
            self.logdir.mkdir(parents=True, exist_ok=True)
            self.lock = runs.lock_folder(self.logdir)
        (self.logdir / runs.RESULT).unlink(missing_ok=True)
        if not any(self.checkpoints.folder.glob("*.checkpoint")):  # killed before the first one
            for events in self.logdir.glob("events.out.tfevents.*"):
                events.unlink()
        self.write(
            runs.CONFIG,
            runs.make_config(self.env_id, self.settings, self.engines, export_dir=self.export_dir),
        )

    def write(self, name, value):
        """Writes a JSON file into the log folder."""
        runs.write_json(self.logdir / name, value)


def make_callbacks(run):
    """What watches the training, in the order in which it sees the logs."""
    import keras

    s = run.values
    found = [keras.callbacks.LambdaCallback(on_train_begin=lambda logs: run.open_folder())]
    if s["eval_every"]:
        found.append(
            ppo_tf.PeriodicEvaluation(
                run.env_id,
                s["eval_every"],
                seed=s["seed"] + 1,  # not the episodes by which the run is judged at its end
                best_path=run.logdir / "best_policy",
                critic=run.critic,
            )
        )
    found.append(ppo_tf.MetricsCSV(run.logdir / "metrics.csv"))
    found.append(ppo_tf.MetricsJSONL(run.logdir / "metrics.jsonl"))
    found.append(ppo_tf.TensorBoardScalars(run.logdir, {"env": run.env_id, **s}))
    name = run.logdir.name
    if s["wandb_project"]:
        found.append(ppo_tf.WandbLogger(s["wandb_project"], name, s, directory=run.logdir))
    if s["mlflow_experiment"]:
        found.append(ppo_tf.MLflowLogger(s["mlflow_experiment"], name, s))
    if s["video_every"]:
        videos = run.logdir / "videos"
        found.append(
            ppo_tf.VideoRecorder(videos, run.env_id, every=s["video_every"], seed=s["seed"])
        )
    expected_kl = s["early_stopping_kl"] or (s["kl_target"] if s["loss"] == "kl_penalty" else None)
    found.append(ppo_tf.HealthAdvice(expected_kl))
    found.append(ppo_tf.Progress())
    return found


def _sizes(words):
    try:
        return tuple(int(word) for word in words)
    except ValueError:
        raise ValueError(
            f"hidden_sizes must be whole numbers, such as 64,64. Received: {','.join(words)}"
        ) from None


def warn(text):
    """Prints one line of warning."""
    print(f"warning: {text}", file=sys.stderr)


def show(run):
    """Prints the resolved settings, grouped by where they came from, and the engines chosen."""
    print(f"{run.env_id}, ppo_tf {ppo_tf.__version__}")
    for source in ("flag", "config", "preset", "default"):
        items = [f"{name}={s.value}" for name, s in run.settings.items() if s.source == source]
        if items:
            text = " ".join(item.replace(" ", "") for item in items)
            indent = " " * 9
            print(textwrap.fill(f"{source + ':':9}{text}", 100, subsequent_indent=indent))
    for name, engine in run.engines.items():
        print(f"{name}: {engine}")
    if run.resumed:
        print(f"going on with {run.logdir}")
        if changes := runs.changed_versions(run.resumed):
            warn(f"results may differ in the last digits: {', '.join(changes)}")


def train(run):
    """Trains; returns the exit code: 0, 1 after a number that is not finite, 130 after Ctrl-C."""
    show(run)
    try:
        ppo_tf.fit(
            run.learner,
            run.collector,
            total_steps=run.values["total_steps"],
            callbacks=run.callbacks,
            checkpoints=run.checkpoints,
        )
    except KeyboardInterrupt:
        print(f"interrupted; to go on: --resume={run.logdir}", file=sys.stderr)
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
    run.write(runs.RESULT, {mode: result.summary() for mode, result in results.items()})
    for mode, result in results.items():
        print(
            f"{mode + ' evaluation:':26}return {result.mean:.1f} +- {result.std:.1f} "
            f"over {len(result.returns)} episodes"
        )


def finish(run, code):
    """Exports the policy and, after training that ended well, evaluates it."""
    ppo_tf.export_policy(
        run.policy,
        run.policy_path,
        critic=run.critic,
        metadata={"env": run.env_id},
        replace=run.resumed is not None,
    )
    if code == 0:
        evaluate(run)
    print(f"policy: {run.policy_path}")
    return code


def main(argv):
    """Runs everything; returns the exit code: 2 where nothing was begun."""
    logging.set_verbosity(logging.WARNING)  # TensorFlow's notes on every file it saves
    begun = False
    try:
        if argv[1:]:
            raise ValueError(f"Only flags are taken. Received: {' '.join(argv[1:])}")
        plan = make_plan()
        if plan.finished:
            print(f"{plan.logdir} is finished; for more: --total_steps")
            return 0
        run = Run(plan)
        if DRY_RUN.value:
            show(run)
            print(ppo_tf.dry_run_report(run.learner, run.envs, run.values["horizon"]))
            run.envs.close()
            return 0
        begun = True
        return finish(run, train(run))
    except (ValueError, ImportError, OSError, ppo_tf.NonFiniteError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if begun else 2
    except KeyboardInterrupt:
        return 130


def parse(argv):
    """Parses the flags; a bad one ends the program with one line."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        print(f"error: {str(error).replace(chr(10), ' ')}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
