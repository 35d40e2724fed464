"""Vector environments by id: their errors and their seeds."""

import importlib.util
import sys
import types

import environments
import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import ppo_tf
from ppo_tf.environments.backends import environment_seeds, reset

environments.register()


def first_observations(env_id, num_envs=4, rounds=1, **kwargs):
    """The observations of the first `rounds` resets, [rounds, B, ...]."""
    envs = ppo_tf.make_envs(env_id, num_envs, **kwargs)
    try:
        return np.stack([envs.reset()[0] for _ in range(rounds)])
    finally:
        envs.close()


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("Pendulum-v1 ", "Pendulum-v1"),
        ("PENDULUM-V1", "Pendulum-v1"),
        ("CartPol-v1", "CartPole-v1"),
        ("cartpole", "CartPole-v1"),
        ("MountainCarContinous-v0", "MountainCarContinuous-v0"),
        ("Pendulum-v7", "Pendulum-v1"),
        ("ppo_tf_tests/Countin-v0", environments.COUNTING),
    ],
)
def test_a_misspelt_id_is_reported_with_similar_ids(misspelt, meant):
    with pytest.raises(ValueError) as caught:
        ppo_tf.make_envs(misspelt)
    message = str(caught.value)
    assert f"env={misspelt!r}" in message
    assert meant in message.split("similar ids: ")[1].split(", ")


def test_an_id_unlike_any_other_gets_no_suggestion():
    with pytest.raises(ValueError) as caught:
        ppo_tf.make_envs("qqqqqqqqqqqqqqqqqqqqqqqq")
    assert "qqqqqqqqqqqqqqqqqqqqqqqq" in str(caught.value)
    assert "similar ids" not in str(caught.value)


@pytest.mark.parametrize("num_envs", [0, -3])
def test_num_envs_below_one_is_an_error_that_names_the_value(num_envs):
    with pytest.raises(ValueError, match=f"num_envs={num_envs}"):
        ppo_tf.make_envs("CartPole-v1", num_envs)


def test_an_unknown_backend_is_an_error_that_lists_the_backends():
    with pytest.raises(ValueError) as caught:
        ppo_tf.make_envs("CartPole-v1", backend="ray")
    assert "backend='ray'" in str(caught.value)
    for backend in ("auto", "sync", "async", "vector"):
        assert repr(backend) in str(caught.value)


def test_backend_vector_without_a_vector_class_is_an_error():
    with pytest.raises(ValueError) as caught:
        ppo_tf.make_envs("Pendulum-v1", backend="vector")
    assert "'vector'" in str(caught.value)
    assert "Pendulum-v1" in str(caught.value)


@pytest.mark.parametrize(
    ("env_id", "package", "extra"),
    [("BipedalWalker-v3", "Box2D", "box2d"), ("HalfCheetah-v5", "mujoco", "mujoco")],
)
def test_a_missing_package_is_an_import_error_that_names_the_extra(env_id, package, extra):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(ImportError) as caught:
        ppo_tf.make_envs(env_id)
    assert env_id in str(caught.value)
    assert f"pip install 'ppo_tf[{extra}]'" in str(caught.value)


def test_a_dependency_missing_from_an_entry_point_names_the_extra(monkeypatch):
    def environment(**kwargs):
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed")

    package = types.ModuleType("ppo_tf_tests_not_installed")
    package.__path__ = []
    module = types.ModuleType("ppo_tf_tests_not_installed.box2d")
    module.Environment = environment
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(ImportError) as caught:
        ppo_tf.make_envs(environments.UNINSTALLED_BOX2D)
    assert environments.UNINSTALLED_BOX2D in str(caught.value)
    assert "ppo_tf[box2d]" in str(caught.value)


def test_a_missing_package_outside_the_extras_is_an_import_error_that_names_the_module():
    with pytest.raises(ImportError) as caught:
        ppo_tf.make_envs(environments.UNINSTALLED)
    assert environments.UNINSTALLED in str(caught.value)
    assert "ppo_tf_tests_not_installed" in str(caught.value)
    assert "ppo_tf[" not in str(caught.value)


def test_an_id_with_a_module_imports_the_module_first(tmp_path, monkeypatch):
    (tmp_path / "ppo_tf_tests_plugin.py").write_text(
        "import gymnasium, environments\n"
        "gymnasium.register('ppo_tf_tests/Plugin-v0', environments.Counting)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(gymnasium.registry, "ppo_tf_tests/Plugin-v0", raising=False)
    envs = ppo_tf.make_envs("ppo_tf_tests_plugin:ppo_tf_tests/Plugin-v0", 2)
    assert isinstance(envs.envs[0].unwrapped, environments.Counting)


def test_a_module_that_does_not_exist_is_an_import_error_that_names_it():
    with pytest.raises(ImportError, match="no_such_module_of_ours"):
        ppo_tf.make_envs("no_such_module_of_ours:Some-v0")


def test_keyword_arguments_reach_the_environment():
    envs = ppo_tf.make_envs(environments.COUNTING, 2, longest=3)
    assert [env.unwrapped.longest for env in envs.envs] == [3, 3]


@pytest.mark.parametrize(
    ("backend", "cls"),
    [("auto", SyncVectorEnv), ("sync", SyncVectorEnv), ("async", AsyncVectorEnv)],
)
def test_the_backend_chooses_the_class_and_autoreset_mode_is_kept(backend, cls):
    mode = AutoresetMode.NEXT_STEP
    envs = ppo_tf.make_envs(environments.COUNTING, 2, backend=backend, autoreset_mode=mode)
    try:
        assert isinstance(envs, cls)
        assert envs.num_envs == 2
        assert envs.metadata["autoreset_mode"] is mode
    finally:
        envs.close()


def test_backend_vector_is_the_environments_own_class():
    envs = ppo_tf.make_envs("CartPole-v1", 3, backend="vector")
    assert not isinstance(envs, SyncVectorEnv | AsyncVectorEnv)
    assert envs.reset()[0].shape == (3, 4)


@pytest.mark.parametrize("backend", ["sync", "vector"])
def test_the_same_seed_gives_the_same_first_observations(backend):
    one, two = (first_observations("CartPole-v1", rounds=3, seed=7, backend=backend) for _ in "ab")
    np.testing.assert_array_equal(one, two)
    assert len(np.unique(one[..., 0])) == one[..., 0].size  # no environment repeats another


@pytest.mark.parametrize("backend", ["sync", "vector"])
def test_near_seeds_share_no_first_observation(backend):
    zero = first_observations("CartPole-v1", num_envs=8, rounds=4, seed=0, backend=backend)
    one = first_observations("CartPole-v1", num_envs=8, rounds=4, seed=1, backend=backend)
    assert not np.isin(zero[..., 0], one[..., 0]).any()


def test_environment_seeds_are_distinct_over_near_run_seeds_and_purposes():
    count = 64
    seeds = [
        word
        for seed in range(8)
        for purpose in ("environments", "evaluation")
        for word in environment_seeds(seed, count, purpose)
    ]
    assert len(set(seeds)) == 8 * 2 * count
    assert min(seeds) >= 0


def test_the_environments_get_their_environment_seeds():
    envs = ppo_tf.make_envs("CartPole-v1", 3, seed=5)
    assert list(envs.np_random_seed) == environment_seeds(5, 3)


def test_a_masked_reset_starts_new_episodes_only_where_the_mask_is_true():
    envs = ppo_tf.make_envs(environments.COUNTING, 3, autoreset_mode=AutoresetMode.DISABLED)
    before = reset(envs, environment_seeds(0, 3))
    after = reset(envs, [None, None, None], np.array([False, True, False]))
    np.testing.assert_array_equal(after[:, 1] - before[:, 1], [0, 1, 0])
