"""Training loops for tests: a tiny learner, precollected rollouts, made-up logs."""

import environments
import numpy as np

import ppo_tf

environments.register()

HORIZON, NUM_ENVS = 8, 4
BATCH = HORIZON * NUM_ENVS


def make_learner(env_id=environments.COUNTING, seed=0, **options):
    """Returns (learner, environments); without XLA, whose compilation dominates short runs."""
    envs = ppo_tf.make_envs(env_id, NUM_ENVS, seed=seed)
    options = {"epochs": 1, "minibatch_size": BATCH // 2, "jit_compile": False, **options}
    network = {"hidden_sizes": (4,), "seed": seed}
    policy, critic = ppo_tf.mlp_policy(envs, **network), ppo_tf.mlp_critic(envs, **network)
    return ppo_tf.Learner(policy, critic, seed=seed, **options), envs


class Data:
    """A collector that returns given rollouts; `begin_episodes` continues at a checkpoint."""

    def __init__(self, rollouts):
        self.horizon, self.num_envs = rollouts[0][0].rewards.shape
        self._rollouts = rollouts
        self.collected = 0

    def collect(self):
        self.collected += 1
        return self._rollouts[self.collected - 1]

    def begin_episodes(self, iterations):
        self.collected = iterations


class Loop:
    """Drives one callback as `fit` does, with made-up logs."""

    def __init__(self, callback, total=10, model=None, step=100):
        self.callback, self.step = callback, step
        callback.set_params({"total_steps": total * step})
        callback.set_model(model)
        callback.on_train_begin()

    def run(self, first, last, **logs):
        """Runs iterations first..last; the value of a log may be a function of the iteration."""
        for i in range(first, last + 1):
            values = {
                name.replace("__", "/"): v(i) if callable(v) else v for name, v in logs.items()
            }
            values = {"rollout/steps": float((i + 1) * self.step), "train/loss": i + 0.5, **values}
            self.callback.on_epoch_end(i, values)
        return self

    def end(self):
        self.callback.on_train_end()


def missing_until(iteration, value):
    """Returns a log that has no value before an iteration."""
    return lambda i: value if i >= iteration else np.nan
