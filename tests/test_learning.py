"""Every ability learned to its known optimum; minutes, hence marked slow.

The environments and their best returns are in `probe_environments.py`. Figures of a run are in
benchmarks/README.md.
"""

import environments
import numpy as np
import probe_environments as probe
import pytest

import ppo_tf

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def registered():
    environments.register()


def train(env_id, *, steps, cell=None, num_envs=16, horizon=32, seed=0, **options):
    """A trained learner and its history; `exclude` keeps a key from the actor, `blind` one from
    the critic as well."""
    envs = ppo_tf.make_envs(env_id, num_envs, seed=seed)
    network = {"hidden_sizes": (32,), "seed": seed}
    continuous = options.pop("continuous", "clipped_gaussian")
    exclude, blind = options.pop("exclude", ()), options.pop("blind", ())
    if cell is None:
        policy = ppo_tf.mlp_policy(envs, continuous=continuous, exclude=exclude, **network)
        critic = ppo_tf.mlp_critic(envs, exclude=blind, **network)
    else:
        memory = {"cell": cell, "units": 32}
        policy = ppo_tf.recurrent_policy(envs, continuous=continuous, **memory, **network)
        critic = ppo_tf.recurrent_critic(envs, **memory, **network)
    learner = ppo_tf.Learner(
        policy,
        critic,
        ppo_tf.default_optimizer(options.pop("learning_rate", 3e-3)),
        loss=ppo_tf.Sum([ppo_tf.Clip(), ppo_tf.EntropyBonus(options.pop("entropy", 0.0))]),
        epochs=options.pop("epochs", 4),
        minibatch_size=options.pop("minibatch_size", 128),
        seed=seed,
        **options,
    )
    history = ppo_tf.fit(learner, envs, total_steps=steps, horizon=horizon)
    envs.close()
    return learner, history


def score(learner, env_id, **options):
    return ppo_tf.evaluate(learner.policy, env_id, episodes=400, seed=1, **options).mean


# Best return of each, and what must be reached.
IDENTITY = {
    probe.IDENTITY_DISCRETE: 0.99,
    probe.IDENTITY_MULTI_DISCRETE: 0.99,
    probe.IDENTITY_MULTI_BINARY: 0.99,
    probe.IDENTITY_BOX: -0.06,
    probe.IDENTITY_TUPLE: 0.93,
    probe.IDENTITY_DICT: 0.93,
}


@pytest.mark.parametrize("env_id", IDENTITY)
def test_an_action_of_each_space_is_repeated(env_id):
    learner, _ = train(env_id, steps=60_000)
    reached = score(learner, env_id)
    print(f"{env_id}: {reached:.3f}")
    assert reached >= IDENTITY[env_id]


@pytest.mark.parametrize(
    "continuous",
    ["tanh_gaussian", "beta", "truncated_gaussian", "full_covariance", "gsde"],
)
def test_a_box_action_is_repeated_by_each_distribution(continuous):
    learner, _ = train(probe.IDENTITY_BOX, steps=60_000, continuous=continuous, learning_rate=1e-3)
    reached = score(learner, probe.IDENTITY_BOX)
    print(f"{continuous}: {reached:.3f}")
    assert reached >= -0.1


@pytest.mark.parametrize("env_id", [probe.MASKED, probe.MASKED_BY_INFO])
def test_the_best_valid_action_is_taken_though_a_better_one_is_never_valid(env_id):
    learner, _ = train(env_id, steps=20_000)
    # The environment raises at an invalid action, sampled ones included: none was taken.
    optimum = np.mean([1 / 3, 2 / 3])
    reached = score(learner, env_id)
    print(f"{env_id}: {reached:.3f} of {optimum:.3f}")
    assert abs(reached - optimum) < 0.03  # three standard errors of 400 episodes


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_memory_carries_the_cue_to_where_it_pays(cell):
    learner, _ = train(
        probe.MEMORY,
        steps=200_000,
        cell=cell,
        entropy=0.02,  # without it the first lucky guess may become the policy
        horizon=34,
        sequence_length=17,
        minibatch_size=272,
    )
    reached = score(learner, probe.MEMORY)
    print(f"{cell}: {reached:.3f}")
    assert reached >= 0.95


def test_without_a_memory_the_cue_is_lost():
    learner, _ = train(probe.MEMORY, steps=60_000, horizon=34, minibatch_size=272)
    reached = score(learner, probe.MEMORY)
    print(f"mlp: {reached:.3f}")
    assert 0.4 < reached < 0.6


def test_an_image_and_a_vector_are_put_together():
    learner, _ = train(probe.IMAGE_AND_VECTOR, steps=50_000, learning_rate=1e-3, entropy=0.02)
    reached = score(learner, probe.IMAGE_AND_VECTOR)
    print(f"image and vector: {reached:.3f}")
    assert reached >= 0.95


def test_a_critic_with_a_secret_explains_what_the_actor_cannot_see():
    def explained(**options):
        learner, history = train(probe.SECRET, steps=40_000, exclude=["secret"], **options)
        seen = {"observation": np.eye(2, dtype=np.float32)}
        np.testing.assert_array_equal(learner.policy(seen), [0, 1])  # it repeats the bit
        return history["train/explained_variance"][-1]

    privileged, blind = explained(), explained(blind=["secret"])
    print(f"explained variance with the secret {privileged:.3f}, without {blind:.3f}")
    assert privileged > 0.98 and blind < 0.1  # of 25.25, the secret makes 25


def test_cartpole_without_velocities_is_balanced_by_a_memory():
    learner, _ = train(
        probe.CARTPOLE_HIDDEN_VELOCITY,
        steps=300_000,
        cell="gru",
        num_envs=8,
        horizon=128,
    )
    reached = ppo_tf.evaluate(
        learner.policy, probe.CARTPOLE_HIDDEN_VELOCITY, episodes=100, seed=1
    ).mean
    print(f"CartPole, velocities hidden: {reached:.1f}")
    assert reached >= 400
