"""Collectors that are actors of a Ray cluster: equal to one process, whatever happens to them."""

import os
import re
import signal
import sys
import time
from pathlib import Path

import environments
import pytest
from test_sweep_command import FAKE, ONE, alive, end, rows, start, starts, sweep, wait_for
from test_workers import HORIZON, NUM_ENVS, SEED, alone, assert_same, parallel, rollouts

import ppo_tf
from ppo_tf.collecting.workers.envs import make_worker_envs
from ppo_tf.command.collecting import ray_options
from ppo_tf.command.settings import DEFAULTS
from ppo_tf.command.sweeping.grid import Run
from ppo_tf.support import ray_cluster

ray = pytest.importorskip("ray")
Cluster = pytest.importorskip("ray.cluster_utils").Cluster
RayProcess = pytest.importorskip("ppo_tf.command.sweeping.ray_processes").RayProcess
environments.register()


@pytest.fixture(scope="module", autouse=True)
def cluster():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4})
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ray_cluster.connect(cluster.address)
    assert before == {number: signal.getsignal(number) for number in before}
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def ray_envs(**options):
    options.setdefault("ray_options", {"num_cpus": 0.5})
    return make_worker_envs(
        "Shaky-v0", NUM_ENVS, collectors=2, seed=SEED, ray_address="local", **options
    )


def test_actors_that_are_killed_are_replaced_and_nothing_changes(capfd):
    """The environment is registered here only, so its entry in the registry is sent along."""
    envs = ray_envs()
    collector = parallel(envs)
    found = []
    for iteration in range(6):
        if iteration == 4:
            collector.begin_episodes(iteration)
        if iteration in (1, 4):
            os.kill(envs.crew.places[iteration % 2].handle.pid, signal.SIGKILL)
        found.append(collector.collect())
    envs.close()
    assert_same(found, alone())
    assert collector.logs["time/restarts"] == 2 and collector.logs["rollout/lost_steps"] == 0
    said = capfd.readouterr()
    assert said.out == "" and "raylet" not in said.err
    assert said.err.count("(Ray actor)") == said.err.count(": replaced") == 2


def test_an_actor_that_hangs_is_replaced():
    envs = ray_envs(timeout=60.0)
    collector = parallel(envs)
    collector.begin_episodes(9)
    expected = collector.collect()
    collector.begin_episodes(9)
    place = envs.crew.places[0]
    stopped = place.handle.pid
    place.handle._hirer.timeout = 3.0
    os.kill(stopped, signal.SIGSTOP)
    assert_same([collector.collect()], [expected])
    assert place.handle.pid != stopped
    envs.close()


def test_a_machine_that_is_gone_is_the_death_of_its_actors(cluster):
    node = cluster.add_node(num_cpus=1, resources={"other": 1})
    collector = parallel(ray_envs(ray_options={"num_cpus": 0, "resources": {"other": 0.5}}))
    found = []
    for iteration in range(6):
        if iteration == 3:
            cluster.add_node(num_cpus=1, resources={"other": 1})
            cluster.remove_node(node)
        if iteration == 4:
            collector.begin_episodes(iteration)
        found.append(collector.collect())
    collector.envs.close()
    assert_same(found, alone())
    assert collector.logs["time/restarts"] >= 2 and collector.logs["rollout/lost_steps"] == 0


def test_weights_are_stored_once_for_all_actors():
    envs = ray_envs()
    collector = parallel(envs)
    collector.collect()
    hirers = {id(place.handle._hirer) for place in envs.crew.places}
    assert len(hirers) == 1
    weights = [[1.0], [2.0]]
    hirer = envs.crew.places[0].handle._hirer
    assert hirer.stored(weights) is hirer.stored(weights)
    assert hirer.stored(list(weights)) is not hirer.stored(weights)
    envs.close()


def test_what_a_worker_raises_comes_as_it_is():
    envs = make_worker_envs(
        environments.NAN_REWARD, NUM_ENVS, collectors=2, ray_address="local", backend="sync"
    )
    with pytest.raises(ppo_tf.NonFiniteError, match="environment 0 gave a non-finite reward"):
        rollouts(parallel(envs))
    assert envs.crew.restarts == 0
    envs.close()


def test_a_collector_that_finds_no_place_is_an_error():
    with pytest.raises(ppo_tf.EnvironmentFailure, match="found no place in the cluster in 3 s"):
        ray_envs(ray_options={"resources": {"unheard of": 1}}, timeout=3.0, max_restarts=0)


def test_fit_collects_with_actors():
    def trained(envs):
        learner = ppo_tf.Learner(
            ppo_tf.mlp_policy(envs, hidden_sizes=(4,), seed=0),
            ppo_tf.mlp_critic(envs, hidden_sizes=(4,), seed=1),
            minibatch_size=8,
            epochs=1,
            jit_compile=False,
        )
        ppo_tf.fit(learner, envs, total_steps=2 * HORIZON * NUM_ENVS, horizon=HORIZON)
        envs.close()
        return [w.tobytes() for w in learner.policy.actor.get_weights()]

    here = ppo_tf.make_envs("Shaky-v0", NUM_ENVS, seed=SEED, backend="sync")
    assert trained(ray_envs()) == trained(here)


# Sweeps


def on(cluster):
    return f"--ray_address={cluster.address}"


def results(cwd):
    kept = ("seed", "gamma", "status", "mean_return", "std_return", "logdir")
    return [{name: row[name] for name in kept} for row in rows(cwd / "s")]


def test_a_sweep_runs_on_the_cluster_as_it_does_here(cluster, tmp_path):
    arguments = [ONE, "--seeds=2", "--grid=gamma=0.5,0.9", "--sweepdir=s"]
    folders = [tmp_path / name for name in ("here", "there")]
    for folder, flags in zip(folders, ([], [on(cluster)]), strict=True):
        folder.mkdir()
        code, _, err = sweep(folder, *arguments, *flags)
        assert code == 0, err
    assert results(folders[0]) == results(folders[1])


def test_a_run_whose_machine_is_gone_starts_again_and_ctrl_c_ends_it(cluster, tmp_path):
    process = start(tmp_path, ONE, "--sweepdir=s", on(cluster), "--", "--hang=seed")
    metrics = tmp_path / "s" / "seed0" / "metrics.csv"
    wait_for(metrics.exists, process)
    guard = parent(alive(tmp_path)[0])
    os.kill(parent(guard), signal.SIGKILL)
    wait_for(lambda: len(starts(tmp_path)) == 2, process)
    process.send_signal(signal.SIGINT)
    _, err = end(process)
    assert process.returncode == 130
    left = [Path(f"/proc/{pid}/status").read_text() for pid in alive(tmp_path)]
    assert left == []
    assert "its machine or process is gone, so it starts again" in err
    assert f"--sweepdir=s --script={FAKE} {on(cluster)}\n" in err


def parent(pid):
    """The process that started another one."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_sweep_needs_a_folder_that_the_machines_share(tmp_path, monkeypatch):
    run = Run("a run", "a", {}, 0, tmp_path / "s" / "seed0")
    run.output.parent.mkdir()
    monkeypatch.setattr(os, "getcwd", lambda: "/not/there")
    process = RayProcess(run, ["-c", "0"], 1)
    while (code := process.poll()) is None:
        time.sleep(0.05)
    assert code == 1
    assert re.match("/not/there is not on .*a folder that all", run.last_error())


# What is refused


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"ray_address='local' needs the extra 'ray': pip inst"):
        ray_envs()


def test_options_without_a_cluster_are_refused():
    with pytest.raises(ValueError, match=r"ray_options need ray_address.*num_cpus"):
        make_worker_envs("Shaky-v0", 4, collectors=2, ray_options={"num_cpus": 2})


@pytest.mark.parametrize("text", ["simulator", "simulator=", "=1", "simulator=0", "simulator=x"])
def test_resources_are_names_with_amounts(text):
    settings = {**DEFAULTS, "collector_resources": ("license=1", text)}
    with pytest.raises(ValueError, match=f"like NAME=AMOUNT.*Received.*license=1,{text}"):
        ray_options(settings)


def test_settings_become_what_an_actor_asks_for():
    settings = {
        **DEFAULTS,
        "collector_cpus": 0.25,
        "collector_memory": 1.5,
        "collector_resources": ("simulator=2",),
    }
    assert ray_options(settings) == {
        "num_cpus": 0.25,
        "num_gpus": 0.0,
        "memory": 1_500_000_000,
        "resources": {"simulator": 2.0},
    }
