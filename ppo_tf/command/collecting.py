"""Environments and collectors from settings: in this process, or in others."""

from __future__ import annotations

import functools
from typing import Any

import gymnasium

from ppo_tf.collecting.collector import VectorCollector
from ppo_tf.collecting.parallel import ParallelCollector
from ppo_tf.collecting.workers.envs import WorkerEnvs, make_worker_envs
from ppo_tf.command.sweeping.processes import cores
from ppo_tf.environments.backends import choose_backend, make_envs
from ppo_tf.learning.learner import Learner
from ppo_tf.learning.reuse import check_loss

Settings = dict[str, Any]


def make_environments(env_id: str, s: Settings) -> tuple[gymnasium.vector.VectorEnv, str]:
    """Makes the environments of a run; returns them, and how they are stepped and why."""
    if s["collectors"] is None:
        s["collectors"] = choose_collectors(env_id, s)
    backend, reason = s["backend"], "as requested"
    if backend == "auto":
        share = s["num_envs"] // max(1, s["collectors"])
        backend, reason = choose_backend(env_id, max(1, share))
    options = {"seed": s["seed"], "backend": backend, "training": True}
    options["max_seconds_per_step"] = s["max_seconds_per_step"]
    description = f"{backend} ({reason})"
    if not s["collectors"]:
        return make_envs(env_id, s["num_envs"], **options), description
    if backend == "async":
        raise ValueError(
            "collectors cannot be combined with backend='async': they are processes themselves. "
            f"Received: collectors={s['collectors']}"
        )
    envs = make_worker_envs(
        env_id,
        s["num_envs"],
        collectors=s["collectors"],
        timeout=s["collector_timeout"],
        max_restarts=s["max_restarts"],
        ray_address=s["ray_address"],
        ray_options=None if s["ray_address"] is None else ray_options(s),
        **options,
    )
    return envs, description


def ray_options(s: Settings) -> dict[str, Any]:
    """Returns what a collector asks a Ray cluster for.

    Raises:
        ValueError: collector_resources is not a list of names and amounts.
    """
    resources = {}
    for text in s["collector_resources"]:
        name, _, amount = text.partition("=")
        try:
            resources[name.strip()] = float(amount)
        except ValueError:
            amount = ""
        if not (name.strip() and amount and resources[name.strip()] > 0):
            raise ValueError(
                "collector_resources must be like NAME=AMOUNT, with amounts above 0. Received: "
                f"collector_resources={','.join(s['collector_resources'])!r}"
            )
    return {
        "num_cpus": s["collector_cpus"],
        "num_gpus": s["collector_gpus"],
        "memory": int(s["collector_memory"] * 1e9) or None,
        "resources": resources,
    }


def choose_collectors(env_id: str, s: Settings) -> int:
    """Returns how many collectors "auto" takes.

    One for each core, for environments that are stepped in turn by Python, each with at least two;
    otherwise none, as EnvPool and vector classes use the cores already or hardly need them. The
    rule is fixed, not timed; what an environment sees does not depend on it.
    """
    backend = s["backend"]
    if backend == "auto":
        backend, _ = choose_backend(env_id, s["num_envs"])
    counts = [n for n in range(2, cores() + 1) if s["num_envs"] % n == 0 and s["num_envs"] >= 2 * n]
    return max(counts, default=0) if backend == "sync" else 0


def make_collector(
    env_id: str, envs: gymnasium.vector.VectorEnv, learner: Learner, s: Settings
) -> tuple[VectorCollector | ParallelCollector, str]:
    """Makes the collector of a run; returns it, and how it acts and why."""
    options: Settings = {"seed": s["seed"], "acting": s["acting"]}
    options["log_probs"] = learner.objective.weighs_steps
    if isinstance(envs, WorkerEnvs):
        if s["staleness"]:
            check_loss(learner.loss)
        parallel = ParallelCollector(
            envs, learner.policy, s["horizon"], staleness=s["staleness"], **options
        )
        return parallel, parallel.description
    if s["staleness"]:
        raise ValueError(
            f"staleness needs collectors. Received: staleness={s['staleness']}, collectors=0"
        )
    collector = VectorCollector(
        envs,
        learner.policy,
        s["horizon"],
        remake=functools.partial(_remake, env_id, s),
        max_restarts=s["max_restarts"],
        **options,
    )
    return collector, collector.acting.description


def _remake(env_id: str, s: Settings, first: int, count: int) -> gymnasium.vector.VectorEnv:
    return make_environments(env_id, s)[0]
