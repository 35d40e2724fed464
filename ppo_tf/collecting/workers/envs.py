"""Environments that live with workers; needs no TensorFlow, as workers import it."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import gymnasium
from gymnasium.vector.utils import batch_space

from ppo_tf.collecting.workers.crew import Crew, Hire
from ppo_tf.collecting.workers.process import ProcessHandle
from ppo_tf.collecting.workers.worker import MakePart
from ppo_tf.environments.backends import choose_backend, environment_seeds, find_spec, make_envs
from ppo_tf.support.checks import check_at_least_one
from ppo_tf.support.ray_cluster import connect


class WorkerEnvs(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Environments that live with workers: their spaces are here, their steps are there.

    For models and learners, which are made for a vector environment, and for `ParallelCollector`.

    Args:
        hire: starts a worker.
        num_envs: number of environments.
        collectors: number of workers; must divide num_envs.
        max_restarts: how often in a row a worker is replaced before its failure is raised.

    Attributes:
        crew: the workers.

    Raises:
        ValueError: an argument is out of range.
        Exception: what a worker raises when it makes its environments.
    """

    def __init__(self, hire: Hire, num_envs: int, collectors: int, max_restarts: int = 3):
        check_share(num_envs, collectors)
        if max_restarts < 0:
            raise ValueError(
                f"max_restarts must be at least 0. Received: max_restarts={max_restarts}"
            )
        self.crew = Crew(hire, collectors, num_envs, max_restarts)
        self.num_envs = num_envs
        self.single_observation_space = self.crew.facts.single_observation_space
        self.single_action_space = self.crew.facts.single_action_space
        self.metadata = self.crew.facts.metadata
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def step(self, actions: Any) -> Any:
        """Raises TypeError: only workers step."""
        raise TypeError("WorkerEnvs are stepped by their workers: use a ParallelCollector")

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        """Raises TypeError: only workers reset."""
        raise TypeError("WorkerEnvs are reset by their workers: use a ParallelCollector")

    def close_extras(self, **kwargs: Any) -> None:
        """Ends the workers."""
        self.crew.close()


def make_worker_envs(
    env_id: str,
    num_envs: int,
    *,
    collectors: int,
    seed: int = 0,
    backend: str = "auto",
    timeout: float | None = None,
    max_restarts: int = 3,
    ray_address: str | None = None,
    ray_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> WorkerEnvs:
    """Makes environments in processes of their own, as `make_envs` does in this one.

    The processes are children of this one, or actors of a Ray cluster.

    Args:
        env_id: id in Gymnasium's registry.
        num_envs: number of environments.
        collectors: number of processes; must divide num_envs.
        seed: seed from which each environment gets its own random stream.
        backend: of `make_envs`, in each process.
        timeout: seconds without a step after which a process is replaced; None: never.
        max_restarts: how often in a row a process is replaced before its failure is raised.
        ray_address: of the cluster: "auto", "local" or HOST:PORT, see `ray_cluster.connect`; None:
            children of this process.
        ray_options: what an actor asks the cluster for, in Ray's terms: num_cpus (default: 1),
            num_gpus, memory in bytes, resources.
        options: further arguments of `make_envs`.

    Raises:
        ValueError: an argument is out of range.
        ImportError: a process can't import what the environment needs, or Ray is not installed.
        ConnectionError: there is no cluster at the address.
        EnvironmentFailure: an environment can't be made.
    """
    check_share(num_envs, collectors)
    if backend == "auto":
        backend, _ = choose_backend(env_id, num_envs // collectors)
    spec = find_spec(env_id)
    options["backend"] = backend
    make = functools.partial(make_part, env_id, spec, environment_seeds(seed, num_envs), options)
    hire: Hire = functools.partial(ProcessHandle, make, timeout=timeout)
    if ray_address is not None:
        hire = _ray_actors(make, timeout, ray_address, dict(ray_options or {}), collectors)
    elif ray_options:
        raise ValueError(f"ray_options need ray_address. Received: ray_options={ray_options}")
    envs = WorkerEnvs(hire, num_envs, collectors, max_restarts)
    envs.spec = spec
    return envs


def _ray_actors(
    make: MakePart, timeout: float | None, address: str, options: dict[str, Any], collectors: int
) -> Hire:
    """Connects to a cluster and returns who hires workers there."""
    options.setdefault("num_cpus", 1)
    connect(address, collectors * options["num_cpus"])
    from ppo_tf.collecting.workers.ray_actors import RayActors  # which imports Ray

    return RayActors(make, timeout, options)


def make_part(
    env_id: str,
    spec: gymnasium.envs.registration.EnvSpec,
    seeds: list[int],
    options: dict[str, Any],
    first: int,
    count: int,
) -> gymnasium.vector.VectorEnv:
    """Makes some of the environments; see `MakePart`.

    Args:
        env_id: id in Gymnasium's registry.
        spec: its entry there, for processes in which nobody has registered it.
        seeds: of all environments.
        options: arguments of `make_envs`.
        first: index of the first one.
        count: how many.
    """
    gymnasium.registry.setdefault(spec.id, spec)
    return make_envs(env_id, count, seed=seeds[first : first + count], **options)


def check_share(num_envs: int, collectors: int) -> None:
    """Raises ValueError unless workers can have equal shares of the environments."""
    check_at_least_one(num_envs=num_envs, collectors=collectors)
    if os.name == "nt":
        raise ValueError(f"collectors need Linux or macOS. Received: collectors={collectors}")
    if num_envs % collectors:
        raise ValueError(
            f"collectors must divide num_envs. Received: collectors={collectors}, "
            f"num_envs={num_envs}"
        )
