"""The probe environments give the returns that their docstrings state."""

import copy

import environments
import gymnasium
import numpy as np
import probe_environments as probes
import pytest
from gymnasium.utils.env_checker import check_env

environments.register()

EPISODES = 2000


def mean_return(env, act, episodes=EPISODES):
    """The mean return of `act(env, observation)`."""
    total = 0.0
    for episode in range(episodes):
        observation, _ = env.reset(seed=1 if episode == 0 else None)
        done = False
        while not done:
            observation, reward, terminated, truncated, _ = env.step(act(env, observation))
            total += reward
            done = terminated or truncated
    return total / episodes


def copy_target(env, observation):
    return copy.copy(env.unwrapped.target)


def best_valid(env, observation):
    mask = env.unwrapped.mask
    return int(np.flatnonzero(mask)[-1])


class Remember:
    """Repeats the sign of the cue that it saw first."""

    def __call__(self, env, observation):
        if observation[0]:
            self.action = int(observation[0] > 0)
        return self.action


def random_action(env, observation):
    return env.action_space.sample()


def random_valid(env, observation):
    return int(env.action_space.sample(mask=env.unwrapped.mask))


IDENTITIES = {
    probes.IDENTITY_DISCRETE: (1, 1 / 4),
    probes.IDENTITY_MULTI_DISCRETE: (1, 5 / 12),
    probes.IDENTITY_MULTI_BINARY: (1, 1 / 2),
    probes.IDENTITY_BOX: (0, -2 / 3),
    probes.IDENTITY_TUPLE: (1, 1 / 3 - 2 / 3),
    probes.IDENTITY_DICT: (1, 1 / 3 - 2 / 3),
}
CASES = {  # id: best policy, its return, random policy, its return
    **{name: (copy_target, best, random_action, low) for name, (best, low) in IDENTITIES.items()},
    probes.MASKED: (best_valid, 1 / 2, random_valid, 1 / 4),
    probes.MASKED_BY_INFO: (best_valid, 1 / 2, random_valid, 1 / 4),
    probes.MEMORY: (Remember(), 1, random_action, 1 / 2),
    probes.IMAGE_AND_VECTOR: (lambda env, _: env.unwrapped.right, 1, random_action, 1 / 2),
    probes.SECRET: (lambda env, _: env.unwrapped.bit, 1, random_action, 1 / 2),
}
# Standard deviation of a mean: of a single return it is at most 1/2, with the secret 5.
ERROR = {name: (5 if name == probes.SECRET else 0.5) / EPISODES**0.5 for name in CASES}


def make(name):
    env = gymnasium.make(name)
    env.action_space.seed(0)
    return env


def test_every_probe_has_a_case():
    assert sorted(CASES) == sorted(probes.ENVIRONMENTS)


@pytest.mark.parametrize("name", CASES)
def test_the_best_policy_gets_the_best_return(name):
    act, expected, *_ = CASES[name]
    exact = name not in (probes.MASKED, probes.MASKED_BY_INFO, probes.SECRET)
    assert mean_return(make(name), act) == pytest.approx(
        expected, abs=0 if exact else 4 * ERROR[name]
    )


@pytest.mark.parametrize("name", CASES)
def test_a_random_policy_gets_the_return_stated(name):
    *_, act, expected = CASES[name]
    assert mean_return(make(name), act) == pytest.approx(expected, abs=4 * ERROR[name])


@pytest.mark.parametrize("name", [*CASES, probes.CARTPOLE_HIDDEN_VELOCITY])
@pytest.mark.filterwarnings("ignore::UserWarning")  # advice on names, bounds and render modes
def test_gymnasiums_checks_pass(name):
    options = {"strict": False} if "Masked" in name else {}
    check_env(gymnasium.make(name, **options).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("name", [probes.MASKED, probes.MASKED_BY_INFO])
def test_an_invalid_action_raises_or_pays_most(name):
    env = gymnasium.make(name)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="invalid action 3"):
        env.step(3)
    assert mean_return(gymnasium.make(name, strict=False), lambda env, _: 3, 10) == 1


def test_memory_shows_the_cue_once_and_asks_at_the_end():
    env = gymnasium.make(probes.MEMORY)
    observation, _ = env.reset(seed=0)
    assert observation[0] in (-1, 1)
    seen = [env.step(int(observation[0] > 0)) for _ in range(17)]
    assert [step[0][0] for step in seen] == [0] * 17
    assert [step[1] for step in seen] == [0] * 16 + [1]
    assert [step[2] for step in seen] == [False] * 16 + [True]


def test_image_or_vector_alone_do_not_tell_the_action():
    env = gymnasium.make(probes.IMAGE_AND_VECTOR)
    side = lambda env, seen: int(seen["image"][:, 8:].max() == 255)  # noqa: E731
    bit = lambda env, seen: int(seen["vector"].argmax())  # noqa: E731
    both = lambda env, seen: side(env, seen) ^ bit(env, seen)  # noqa: E731
    assert mean_return(env, side) == pytest.approx(0.5, abs=0.05)
    assert mean_return(env, bit) == pytest.approx(0.5, abs=0.05)
    assert mean_return(env, both) == 1


def test_the_critic_of_the_secret_knows_the_return():
    env = gymnasium.make(probes.SECRET)
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        _, reward, *_ = env.step(env.unwrapped.bit)
        assert reward == 1 + 5 * observation["secret"][0]


def test_cartpole_hides_its_speeds_and_ends_at_500_steps():
    env = gymnasium.make(probes.CARTPOLE_HIDDEN_VELOCITY)
    whole = gymnasium.make("CartPole-v1")
    np.testing.assert_array_equal(env.reset(seed=3)[0], whole.reset(seed=3)[0][[0, 2]])
    np.testing.assert_array_equal(env.step(1)[0], whole.step(1)[0][[0, 2]])
    assert env.spec.max_episode_steps == 500


def test_cartpole_is_balanced_with_speeds_from_memory():
    """A linear rule on position, angle and their last changes balances the pole to the end."""
    env = gymnasium.make(probes.CARTPOLE_HIDDEN_VELOCITY)
    last = None

    def act(env, seen):
        nonlocal last
        speed = (seen - last) / 0.02 if last is not None else np.zeros(2)
        last = seen
        return int(0.3 * seen[0] + 0.6 * speed[0] + 5 * seen[1] + 1.0 * speed[1] > 0)

    assert mean_return(env, act, episodes=5) == 500
