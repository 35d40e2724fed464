"""A run of the training command: preparation, training, evaluation and export."""

from __future__ import annotations

import contextlib
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from ppo_tf._version import __version__
from ppo_tf.artefacts.saved_model import TracedPolicy
from ppo_tf.callbacks.health import HealthAdvice
from ppo_tf.callbacks.logs import MetricsCSV, MetricsJSONL
from ppo_tf.callbacks.periodic_evaluation import PeriodicEvaluation
from ppo_tf.callbacks.progress import Progress
from ppo_tf.callbacks.tensorboard import TensorBoardScalars
from ppo_tf.callbacks.trackers import MLflowLogger, WandbLogger
from ppo_tf.callbacks.video_recorder import VideoRecorder
from ppo_tf.command import effects, ending, parsing, runs
from ppo_tf.command.collecting import make_collector, make_environments
from ppo_tf.command.components import learner_from_settings
from ppo_tf.command.presets import SOURCES
from ppo_tf.command.report import COLLECTOR, dry_run_report
from ppo_tf.environments.stepping import close
from ppo_tf.environments.waiting import can_end_calls
from ppo_tf.evaluating.evaluation import evaluate
from ppo_tf.learning.learner import Learner
from ppo_tf.support.json_files import write_json
from ppo_tf.support.telling import tell
from ppo_tf.training.checkpoints import Checkpoints
from ppo_tf.training.loop import fit
from ppo_tf.types import EnvironmentFailure, NonFiniteError

FAILURES: tuple[type[Exception], ...] = (*parsing.ERRORS, NonFiniteError, EnvironmentFailure)


class Run:
    """Everything a run needs, created before training starts and before anything is written.

    Args:
        plan: what to run, and where.

    Raises:
        ValueError: settings are incompatible.
        ImportError: a package that the environment or a setting needs is not installed.
    """

    def __init__(self, plan: runs.Plan):
        self.env_id, self.settings = plan.env_id, plan.settings
        self.logdir, self.export_dir = plan.logdir, plan.export_dir
        self.policy_path, self.resumed = plan.policy_path, plan.resumed
        self.run_id = self.resumed["id"] if self.resumed else runs.new_id()
        s = self.values = {name: setting.value for name, setting in self.settings.items()}
        self.envs, environments = make_environments(self.env_id, s)
        # Evaluations step in turn.
        self.evaluation_limit = s["max_seconds_per_step"] if can_end_calls() else None
        self.learner = learner_from_settings(self.envs, s)
        self.policy, self.critic = self.learner.policy, self.learner.critic
        self.learner.check_batch(s["horizon"], s["num_envs"])
        self.artefact = traced(self.learner)
        self.collector, acting = make_collector(self.env_id, self.envs, self.learner, s)
        self.engines = {"environments": environments, "acting": acting}
        if self.resumed and self.resumed["engines"] != self.engines:
            raise ValueError(
                f"{self.logdir} was run with {self.resumed['engines']}. Received: {self.engines}"
            )
        self.checkpoints = Checkpoints(
            self.logdir / "checkpoints",
            every=s["checkpoint_every"],
            minutes=s["checkpoint_minutes"],
            # Those of a resumed run are boundaries again wherever it comes past them again.
            at={*s["checkpoint_at"], *(self.resumed["boundaries"] if self.resumed else ())},
            monitor="eval/mean_return" if s["eval_every"] else "rollout/episode_return",
            run=self.run_id,
            warn=parsing.warn,
            say=say_with_flags,
            on_save=self.write_config,
        )
        self.callbacks = make_callbacks(self)
        if self.resumed:
            self.lock = runs.lock_folder(self.logdir, "resume")

    def open_folder(self) -> None:
        """Creates the log folder and its config.json."""
        if not self.resumed:
            self.logdir.mkdir(parents=True, exist_ok=True)
            self.lock = runs.lock_folder(self.logdir)
        (self.logdir / runs.RESULT).unlink(missing_ok=True)
        if not any(self.checkpoints.folder.glob("*.checkpoint")):  # stopped before the first one
            for events in self.logdir.glob("events.out.tfevents.*"):
                events.unlink()
        self.write_config()

    def write_config(self) -> None:
        """Writes config.json, with the boundaries so far."""
        self.write(
            runs.CONFIG,
            runs.make_config(
                self.run_id,
                self.env_id,
                self.settings,
                self.engines,
                self.export_dir,
                self.checkpoints.boundaries.known,
            ),
        )

    def write(self, name: str, value: Any) -> None:
        """Writes a JSON file to the log folder, which may have been deleted meanwhile."""
        self.logdir.mkdir(parents=True, exist_ok=True)
        if not (self.logdir / runs.LOCK).exists():
            self.lock.release(force=True)
            self.lock = runs.lock_folder(self.logdir)
        write_json(self.logdir / name, value)


def traced(learner: Learner) -> TracedPolicy:
    """Returns the learner's policy, ready to be exported.

    Raises:
        ValueError: it can't be exported, whatever the reason.
    """
    try:
        return TracedPolicy(learner.policy, learner.critic)
    except Exception as error:  # a part of one's own may raise anything
        lines = str(error).strip().splitlines()
        what = ": ".join([type(error).__name__, *lines[:1]])
        raise ValueError(f"The policy could not be exported at the end: {what}") from error


def make_callbacks(run: Run) -> list[keras.callbacks.Callback]:
    """Returns the callbacks of the training, in the order in which they get the logs."""
    s, logdir = run.values, run.logdir
    found = [keras.callbacks.LambdaCallback(on_train_begin=lambda logs: run.open_folder())]
    if s["eval_every"]:
        found.append(
            PeriodicEvaluation(
                run.env_id,
                s["eval_every"],
                max_steps=s["eval_max_steps"],
                seed=s["seed"] + 1,  # not the episodes of the final evaluation
                best_path=logdir / "best_policy",
                critic=run.critic,
                max_seconds_per_step=run.evaluation_limit,
            )
        )
    found.append(MetricsCSV(logdir / "metrics.csv"))
    found.append(MetricsJSONL(logdir / "metrics.jsonl"))
    found.append(TensorBoardScalars(logdir, {"env": run.env_id, **s}))
    if s["wandb_project"]:
        found.append(WandbLogger(s["wandb_project"], logdir.name, s, directory=logdir))
    if s["mlflow_experiment"]:
        found.append(MLflowLogger(s["mlflow_experiment"], logdir.name, s))
    if s["video_every"]:
        videos = logdir / "videos"
        found.append(VideoRecorder(videos, run.env_id, every=s["video_every"], seed=s["seed"]))
    target = s["kl_target"] if "kl_penalty" in s["loss"] else None
    region = None if s["update_rule"] == "minibatch" else s["trust_region"]
    expected_kl = region or s["early_stopping_kl"] or target
    found.append(HealthAdvice(expected_kl, say=say_with_flags))
    found.append(Progress())
    return found


def say_with_flags(line: str) -> None:
    """Prints a line of advice, with the settings in backticks as flags."""
    tell(re.sub(r"`([^`]+)`", r"--\1", line))


def show(run: Run) -> None:
    """Prints the resolved settings, grouped by source, and the selected engines."""
    print(f"{run.env_id}, ppo_tf {__version__}")
    for source in SOURCES:
        items = [f"{name}={s.value}" for name, s in run.settings.items() if s.source == source]
        if items:
            text = " ".join(item.replace(" ", "") for item in items)
            indent = " " * 9
            print(textwrap.fill(f"{source + ':':9}{text}", 100, subsequent_indent=indent))
    for name, engine in run.engines.items():
        print(f"{name}: {engine}")
    for line in effects.without_effect(run.settings, run.envs, run.env_id):
        parsing.warn(line)
    if run.resumed:
        print(f"resuming {run.logdir}")
        if changes := runs.changed_versions(run.resumed):
            parsing.warn(f"results may differ in the last digits: {', '.join(changes)}")


def dry_run(plan: runs.Plan) -> int:
    """Prints the settings, the models and the expected memory; returns the exit code."""
    with memory_errors():
        run = Run(plan)
        show(run)
        print(dry_run_report(run.learner, run.envs, run.values["horizon"]))
        if count := run.values["collectors"]:
            size = COLLECTOR[run.engines["acting"] == "LiteRT"]
            print(
                f"{count} collectors: {count} processes of about {size / 1e6:.0f} MB each beside "
                f"their environments, {count * size / 1e6:,.0f} MB"
            )
    close(run.collector.envs)
    return 0


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Context in which TensorFlow's lack of memory is a MemoryError, as Python's and NumPy's is."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise MemoryError(error.message) from error


def perform(plan: runs.Plan) -> int:
    """Trains, exports and evaluates; returns the exit code.

    Raises:
        ValueError, ImportError, OSError, MemoryError, NonFiniteError, EnvironmentFailure: the run
            can't start.
    """
    with memory_errors():
        run = Run(plan)
    try:
        with memory_errors():
            return finish(run, train(run))
    except FAILURES as error:
        parsing.fail(error)
        return 1
    finally:
        close(run.collector.envs)


def train(run: Run) -> int:
    """Trains; returns the exit code.

    It is 0 after a whole training; 1 after a NaN, an infinity or an environment's failure, or if
    memory ran out; 128 and the signal's number after a signal: 130 after Ctrl-C.
    """
    show(run)
    try:
        with memory_errors():
            fit(
                run.learner,
                run.collector,
                total_steps=run.values["total_steps"],
                callbacks=run.callbacks,
                checkpoints=run.checkpoints,
            )
    except KeyboardInterrupt as interrupt:
        tell(f"{ending.name(interrupt)}; {how_to_resume(run)}")
        return ending.exit_code(interrupt)
    except (EnvironmentFailure, MemoryError) as error:
        parsing.fail(error)
        tell(how_to_resume(run))
        return 1
    except NonFiniteError as error:
        parsing.fail(error)
        return 1
    return 0


def how_to_resume(run: Run) -> str:
    """Says how to resume a run that ended early."""
    return f"to resume: ppo-tf train --resume={run.logdir}"


def finish(run: Run, code: int) -> int:
    """Exports the policy and, if training was completed, evaluates it.

    Args:
        run: the run.
        code: exit code of the training.

    Returns:
        The exit code of the run.
    """
    run.artefact.write(
        run.policy_path,
        metadata={"env": run.env_id, "run": run.run_id},
        replace=run.resumed is not None,
    )
    try:
        if code == 0:
            close(run.collector.envs)
            write_evaluation(run)
    finally:
        print(f"policy: {run.policy_path}", flush=True)
    return code


def write_evaluation(run: Run) -> None:
    """Evaluates the policy in both modes, writes evaluation.json and prints the results."""
    s, results = run.values, {}
    for mode in ("deterministic", "sampled"):
        results[mode] = evaluate(
            run.policy,
            run.env_id,
            episodes=s["eval_episodes"],
            max_steps=s["eval_max_steps"],
            warn=parsing.warn,
            seed=s["seed"],
            deterministic=mode == "deterministic",
            max_seconds_per_step=run.evaluation_limit,
        )
    run.write(runs.RESULT, {mode: result.summary() for mode, result in results.items()})
    for mode, result in results.items():
        print(
            f"{mode + ' evaluation:':26}return {result.mean:.1f} +- {result.std:.1f} "
            f"over {len(result.returns)} episodes"
        )
