"""Declarations of how a run collects, is watched and ends."""

from __future__ import annotations

from ppo_tf.command.declarations import Choice, Declaration

COLLECTING: tuple[Declaration, ...] = (
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
        "max_seconds_per_step",
        float,
        None,
        "Seconds that a step or a reset may take; none: for ever.",
        above=0,
        optional=True,
        may_change=True,
        only_with={"backend": ("auto", "sync", "async")},
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
        None,
        "Environment steps between checkpoints, at which new episodes start; none: 12,500 of each "
        "environment; 0: none by steps.",
        least=0,
        optional=True,
    ),
    Declaration(
        "checkpoint_minutes",
        float,
        5.0,
        "Minutes after which the next iteration ends with a checkpoint; 0: none by time.",
        least=0,
        may_change=True,
    ),
    Declaration(
        "checkpoint_at",
        int,
        (),
        "Environment steps of further checkpoints, to repeat a run; none by time before the last.",
        least=1,
    ),
    Declaration(
        "horizon",
        int,
        256,
        "Steps per environment and iteration (the paper's T).",
        least=1,
    ),
)

RUN: tuple[Declaration, ...] = (
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
        most=10_000_000,
        may_change=True,
    ),
    Declaration(
        "eval_max_steps",
        int,
        100_000,
        "Steps after which an evaluated episode is cut off.",
        least=1,
        may_change=True,
        only_for="episodes that may be longer",
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
    Declaration(
        "devices",
        int,
        1,
        "GPUs of this machine that share each gradient step; the first ones are taken.",
        least=1,
        most=1024,
    ),
)
