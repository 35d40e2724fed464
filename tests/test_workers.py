"""Crews of workers: equal to one process, whoever collects and whatever happens to them."""

import functools
import os
import pickle
import signal
from typing import ClassVar

import environments
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from shaky import Shaky

import ppo_tf
from ppo_tf.collecting.workers import channel
from ppo_tf.collecting.workers.envs import WorkerEnvs, make_part, make_worker_envs
from ppo_tf.collecting.workers.handles import LocalHandle, Lost
from ppo_tf.environments.backends import environment_seeds, find_spec
from ppo_tf.policies.acting import make_acting, make_engine_model

environments.register()

HORIZON, NUM_ENVS, SEED = 6, 4, 3
COUNTING = environments.COUNTING


@pytest.fixture(autouse=True)
def no_faults():
    Shaky.faults, Shaky.made = [], 0


def local_envs(collectors, env_id="Shaky-v0", handle=LocalHandle, max_restarts=3, **options):
    """Environments with workers in this process."""
    seeds = environment_seeds(SEED, NUM_ENVS)
    options.setdefault("backend", "sync")
    make = functools.partial(make_part, env_id, find_spec(env_id), seeds, options)
    return WorkerEnvs(functools.partial(handle, make), NUM_ENVS, collectors, max_restarts)


def policy_of(envs):
    return ppo_tf.mlp_policy(envs, hidden_sizes=(4,), seed=0)


def rollouts(collector, boundary=4, count=6):
    """Rollouts with a boundary in between, as (trajectory, episodes)."""
    found = []
    for iteration in range(count):
        if iteration == boundary:
            collector.begin_episodes(iteration)
        found.append(collector.collect())
    return found


def alone(env_id="Shaky-v0", **options):
    """The rollouts of a collector in this process."""
    options.setdefault("backend", "sync")
    envs = ppo_tf.make_envs(env_id, NUM_ENVS, seed=SEED, **options)
    return rollouts(ppo_tf.VectorCollector(envs, policy_of(envs), HORIZON, seed=SEED))


def parallel(envs, **options):
    return ppo_tf.ParallelCollector(envs, policy_of(envs), HORIZON, seed=SEED, **options)


def assert_same(found, expected):
    for (trajectory, episodes), (other, other_episodes) in zip(found, expected, strict=True):
        for name in ppo_tf.Trajectory._fields[:8]:
            np.testing.assert_array_equal(getattr(trajectory, name), getattr(other, name), name)
        assert episodes == other_episodes


# Equality with one process


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("collectors", [1, 2])
def test_what_environments_see_does_not_depend_on_the_number_of_workers(mode, collectors):
    envs = local_envs(collectors, COUNTING, autoreset_mode=mode)
    assert_same(rollouts(parallel(envs)), alone(COUNTING, autoreset_mode=mode))


def test_memories_are_carried_by_the_workers():
    def recurrent(envs):
        return ppo_tf.recurrent_policy(envs, cell="gru", units=4, hidden_sizes=(4,), seed=0)

    envs = ppo_tf.make_envs("Shaky-v0", NUM_ENVS, seed=SEED, backend="sync")
    expected = rollouts(ppo_tf.VectorCollector(envs, recurrent(envs), HORIZON, seed=SEED))
    envs = local_envs(2)
    faults = [once(iteration=2, step=3), once(iteration=5, step=1)]
    collector = ppo_tf.ParallelCollector(envs, recurrent(envs), HORIZON, seed=SEED)
    assert_same(with_faults(collector, faults), expected)
    assert collector.logs["time/restarts"] == 2


# Failures


def once(iteration, step, error=RuntimeError):
    """A fault of one worker at a step of an iteration, the first time that it comes there."""
    return {"iteration": iteration, "step": step, "error": error, "times": 1}


def with_faults(collector, faults, count=6, boundary=4):
    """`rollouts` in which environments fail: {iteration, step of it, error, times}."""
    found = []
    for iteration in range(count):
        if iteration == boundary:
            collector.begin_episodes(iteration)
        for fault in faults:
            if fault["iteration"] == iteration:
                Shaky.faults.append(_Fault(collector, fault))
        found.append(collector.collect())
        Shaky.faults.clear()
    return found


class _Fault:
    """Raises when the worker of the first environment that steps comes to a step of a rollout."""

    def __init__(self, collector, fault):
        self.left, self.error = fault["times"], fault["error"]
        self.places, self.step = collector.crew.places, fault["step"]
        place = self.places[0]
        self.at = place.record.steps + fault["step"] + 1

    def __call__(self, env):
        worker = self.places[0].handle.worker
        if not self.left or not any(env is e.unwrapped for e in worker.envs.envs):
            return
        if worker._progress[0] == self.at:
            self.left -= 1
            raise self.error("broken")


@pytest.mark.parametrize("collectors", [1, 2])
def test_a_worker_whose_environment_raises_is_replaced_and_nothing_changes(collectors, capsys):
    collector = parallel(local_envs(collectors))
    faults = [once(0, 2), once(1, 0), once(3, 5), once(4, 1)]
    assert_same(with_faults(collector, faults), alone())
    assert collector.logs["time/restarts"] == 4 and collector.logs["rollout/lost_steps"] == 0
    assert collector.logs["time/wait_seconds"] >= 0.0 < collector.logs["time/collect_seconds"]
    assert capsys.readouterr().err.count("raised RuntimeError at its step") == 4


def test_environments_of_this_process_are_replaced_as_well():
    def remake(first, count):
        return ppo_tf.make_envs("Shaky-v0", count, seed=SEED, backend="sync")

    envs = remake(0, NUM_ENVS)
    collector = ppo_tf.VectorCollector(
        envs, policy_of(envs), HORIZON, seed=SEED, remake=remake, max_restarts=2
    )
    assert_same(with_faults(collector, [once(0, 2), once(5, 3)]), alone())
    assert collector.envs is not envs


class Mortal(LocalHandle):
    """A worker that dies when it is told to."""

    deaths: ClassVar = []  # methods during which the next workers die

    def result(self):
        method = getattr(self, "method", "facts")
        if Mortal.deaths and Mortal.deaths[0] == method:
            Mortal.deaths.pop(0)
            raise Lost("was killed by SIGKILL", int(self.worker._progress[0]))
        return super().result()

    def call(self, method, *arguments):
        self.method = method
        super().call(method, *arguments)


def test_workers_may_die_at_any_moment_even_while_they_replace_another():
    envs = local_envs(2, handle=Mortal, max_restarts=10)
    collector = parallel(envs)
    found = []
    for iteration in range(6):
        if iteration == 4:
            Mortal.deaths += ["begin_episodes", "begin_episodes", "facts"]
            collector.begin_episodes(iteration)
        if iteration in (2, 4):
            Mortal.deaths += ["collect", "replay", "facts", "prepare", "collect"]
        found.append(collector.collect())
    assert not Mortal.deaths
    assert_same(found, alone())
    assert collector.logs["time/restarts"] == 13 and collector.logs["rollout/lost_steps"] == 0


def test_workers_may_die_before_they_collect():
    Mortal.deaths += ["facts", "facts"]
    envs = local_envs(2, handle=Mortal)
    Mortal.deaths += ["prepare", "facts"]
    collector = parallel(envs)
    assert_same(rollouts(collector), alone())
    assert collector.logs["time/restarts"] == 4


def test_an_environment_that_fails_at_the_same_step_again_gets_other_episodes(capsys):
    collector = parallel(local_envs(2))
    found = with_faults(collector, [{**once(2, 3), "times": 2}])
    expected = alone()
    assert_same(found[:2], expected[:2])
    assert_same(found[4:], expected[4:])  # after the boundary
    trajectory, other = found[2][0], expected[2][0]
    np.testing.assert_array_equal(trajectory.rewards[:, 2:], other.rewards[:, 2:])
    assert not np.array_equal(trajectory.rewards[:, :2], other.rewards[:, :2])
    assert trajectory.starts[0, :2].all()
    under_way = lengths_under_way([t for t, _ in found[:2]])[:2].sum()
    assert collector.logs["rollout/lost_steps"] == under_way > 0
    assert f"{under_way} steps are lost" in capsys.readouterr().err


def lengths_under_way(trajectories):
    """Steps of each environment since its last episode ended."""
    done = np.concatenate([t.terminated | t.truncated for t in trajectories])
    return np.array([np.argmax([*column[::-1], True]) for column in done.T])


def test_environments_that_do_not_repeat_themselves_get_other_episodes(capsys):
    collector = parallel(local_envs(2, honest=False))
    found = with_faults(collector, [once(2, 3)])
    assert found[2][0].starts[0].tolist() == [True, True, *found[2][0].starts[0, 2:].tolist()]
    assert collector.logs["rollout/lost_steps"] > 0
    assert "can't be repeated" in capsys.readouterr().err


@pytest.mark.parametrize("max_restarts", [0, 2])
def test_after_too_many_failures_in_a_row_the_environment_has_its_own_error(max_restarts):
    collector = parallel(local_envs(2, max_restarts=max_restarts))
    collector.collect()
    Shaky.faults.append(lambda env: _raise())
    with pytest.raises(ppo_tf.EnvironmentFailure, match=r"raised RuntimeError at its step \d: b"):
        collector.collect()
    assert collector.crew.restarts == max_restarts


def test_a_nan_is_no_reason_to_try_again():
    envs = local_envs(2, environments.NAN_REWARD)
    collector = parallel(envs)
    with pytest.raises(ppo_tf.NonFiniteError, match="environment 0 gave a non-finite reward"):
        rollouts(collector)
    assert collector.crew.restarts == 0


def test_failures_name_the_environment_among_all():
    collector = parallel(local_envs(2, max_restarts=0))
    workers = [place.handle.worker for place in collector.crew.places]
    last = workers[1].envs.envs[1].unwrapped
    Shaky.faults.append(lambda env: _raise() if env is last else None)
    with pytest.raises(ppo_tf.EnvironmentFailure, match="environment 3 raised"):
        collector.collect()


def _raise():
    raise RuntimeError("broken")


# Staleness


def test_with_staleness_the_weights_that_act_are_one_update_old():
    envs = local_envs(2)
    policy = policy_of(envs)
    collector = ppo_tf.ParallelCollector(envs, policy, HORIZON, seed=SEED, staleness=1)
    fresh = ppo_tf.ParallelCollector(local_envs(2), policy_of(envs), HORIZON, seed=SEED)
    versions = [policy.actor.get_weights()]
    found = []
    for _ in range(4):
        found.append(collector.collect()[0])
        changed = [w + 0.3 * np.cos(w + len(versions)) for w in policy.actor.get_weights()]
        policy.actor.set_weights(changed)
        versions.append(changed)
    acted = [versions[0], *versions[:3]]  # rollout k was begun before update k
    for trajectory, weights in zip(found, acted, strict=True):
        fresh_policy = policy_of(envs)
        fresh_policy.actor.set_weights(weights)
        parameters = fresh_policy.step(trajectory.observations.reshape(-1, 2), [])[0]
        dist = fresh_policy.family(**parameters)
        log_probs = dist.log_prob(trajectory.actions.reshape(-1))
        np.testing.assert_allclose(trajectory.log_probs.reshape(-1), log_probs, atol=1e-5)
    assert fresh.collect()[0].log_probs == ()


def test_a_boundary_drops_what_stale_weights_collect():
    """So that a resumed run, which has nothing under way, is the same."""
    envs = local_envs(2)
    collector = parallel(envs, staleness=1)
    found = rollouts(collector, boundary=2, count=4)
    resumed = parallel(local_envs(2), staleness=1)
    resumed.begin_episodes(2)
    again = [resumed.collect() for _ in range(2)]
    assert_same(found[2:], again)


def test_stale_trajectories_are_learned_from_with_importance_weights():
    envs = local_envs(2)
    options = {"minibatch_size": 8, "epochs": 1, "jit_compile": False, "reuse": 1}
    learner = ppo_tf.Learner(policy_of(envs), ppo_tf.mlp_critic(envs, hidden_sizes=(4,)), **options)
    collector = ppo_tf.ParallelCollector(envs, learner.policy, HORIZON * 2, staleness=1)
    metrics = [learner.update(collector.collect()[0]) for _ in range(3)]
    sizes = [m["effective_sample_size"] for m in metrics]
    np.testing.assert_allclose(sizes[0], 1.0, atol=1e-6)  # nothing is stale yet
    assert sizes[2] < 1.0


def test_fit_collects_with_the_workers_of_its_environments():
    def trained(envs):
        learner = ppo_tf.Learner(
            policy_of(envs),
            ppo_tf.mlp_critic(envs, hidden_sizes=(4,), seed=1),
            minibatch_size=8,
            epochs=1,
            jit_compile=False,
        )
        ppo_tf.fit(learner, envs, total_steps=3 * HORIZON * NUM_ENVS, horizon=HORIZON)
        return learner.policy.actor.get_weights()

    here = trained(ppo_tf.make_envs("Shaky-v0", NUM_ENVS, seed=SEED, backend="sync"))
    for one, other in zip(here, trained(local_envs(2)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("acting", ["litert", "tensorflow"])
def test_memories_survive_a_failure_with_both_engines(acting):
    def collector_of(faults):
        envs = local_envs(1)
        policy = ppo_tf.recurrent_policy(envs, cell="lstm", units=3, hidden_sizes=(4,), seed=0)
        collector = ppo_tf.ParallelCollector(envs, policy, HORIZON, seed=SEED, acting=acting)
        return with_faults(collector, faults, count=3)

    assert_same(collector_of([once(1, 2), once(2, 0)]), collector_of([]))


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"collectors": 3}, "collectors must divide num_envs.*collectors=3, num_envs=4"),
        ({"collectors": 8}, "collectors must divide num_envs.*collectors=8, num_envs=4"),
        ({"collectors": 0}, "collectors must be at least 1.*collectors=0"),
        ({"collectors": 2, "max_restarts": -1}, "max_restarts must be at least 0.*-1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        local_envs(**arguments)


@pytest.mark.parametrize("staleness", [-1, 2])
def test_staleness_is_0_or_1(staleness):
    with pytest.raises(ValueError, match=f"staleness must be 0 or 1.*{staleness}"):
        parallel(local_envs(2), staleness=staleness)


def test_staleness_with_a_memory_is_refused():
    envs = local_envs(2)
    policy = ppo_tf.recurrent_policy(envs, cell="gru", units=4)
    with pytest.raises(ValueError, match="staleness cannot be combined with a memory"):
        ppo_tf.ParallelCollector(envs, policy, HORIZON, staleness=1)


def test_worker_envs_are_not_stepped_here():
    envs = local_envs(2)
    with pytest.raises(TypeError, match="use a ParallelCollector"):
        envs.step(None)
    with pytest.raises(TypeError, match="use a ParallelCollector"):
        envs.reset()


# Processes


@pytest.fixture(scope="module")
def worker_envs():
    envs = make_worker_envs("Shaky-v0", NUM_ENVS, collectors=2, seed=SEED, timeout=20.0)
    yield envs
    envs.close()


def test_processes_that_are_killed_are_replaced_and_nothing_changes(worker_envs):
    """The environment is registered here only, so its entry in the registry is sent along."""
    collector = parallel(worker_envs)
    found = []
    for iteration in range(6):
        if iteration == 4:
            collector.begin_episodes(iteration)
        if iteration in (1, 4):
            os.kill(worker_envs.crew.places[iteration % 2].handle.pid, signal.SIGKILL)
        found.append(collector.collect())
    assert_same(found, alone())
    assert collector.logs["time/restarts"] == 2


def test_a_process_that_hangs_is_replaced(worker_envs):
    collector = parallel(worker_envs)
    collector.begin_episodes(9)
    expected = collector.collect()
    collector.begin_episodes(9)
    handle = worker_envs.crew.places[0].handle
    handle._timeout = 0.5
    os.kill(handle.pid, signal.SIGSTOP)
    assert_same([collector.collect()], [expected])
    assert worker_envs.crew.places[0].handle.pid != handle.pid


def test_processes_end_with_their_environments_and_leave_no_files():
    envs = make_worker_envs("Shaky-v0", NUM_ENVS, collectors=1, seed=SEED)
    collector = parallel(envs)
    collector.collect()
    handle = envs.crew.places[0].handle
    envs.close()
    assert handle._process.returncode == 0
    pids = (handle.pid, os.getpid())
    left = [p for pid in pids for f in channel._folders() for p in f.glob(f"ppo_tf-{pid}-*")]
    assert not left


# Messages


def test_messages_come_through_with_their_arrays():
    ends = [os.pipe() for _ in range(2)]
    here = channel.Channel(ends[0][0], ends[1][1])
    there = channel.Channel(ends[1][0], ends[0][1])
    generator = np.random.default_rng(0)
    for size in (0, 1, 1000, 100_000, 10):
        message = {"x": generator.normal(size=size), "y": [np.arange(size, dtype=np.int8), "z"]}
        here.send(message)
        received = there.receive(5.0)
        np.testing.assert_equal(received, message)
        there.send(received["x"])
        np.testing.assert_array_equal(here.receive(5.0), message["x"])
    with pytest.raises(TimeoutError):
        there.receive(0.0)
    here.close()
    with pytest.raises((EOFError, OSError)):
        there.receive(5.0)
    there.close()


# Engines


@pytest.mark.parametrize("acting", ["litert", "tensorflow"])
def test_engines_act_the_same_after_they_were_sent(acting):
    envs = ppo_tf.make_envs("Shaky-v0", 2, backend="sync")
    policy = policy_of(envs)
    here = make_acting(policy, envs, acting)
    model, _ = make_engine_model(policy, envs, acting)
    there = pickle.loads(pickle.dumps(model)).make()
    there.begin(*here.order(3, 0, 0))
    here.begin(3, 0, 0)
    observations, starts = np.ones((2, 2), np.float32), np.zeros(2, bool)
    for step in range(3):
        for one, other in zip(
            here(observations, step, starts), there(observations, step, starts), strict=True
        ):
            np.testing.assert_array_equal(one, other)
