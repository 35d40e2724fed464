"""The training loop to test with: a tiny learner, rollouts that are there already, logs made up."""

import environments
import numpy as np

import ppo_tf

environments.register()

HORIZON, NUM_ENVS = 8, 4
BATCH = HORIZON * NUM_ENVS


def make_learner(env_id=environments.COUNTING, seed=0, **options):
    """(learner, environments); not compiled by XLA, whose compilations are most of a short run."""
    envs = ppo_tf.make_envs(env_id, NUM_ENVS, seed=seed)
    options = {"epochs": 1, "minibatch_size": BATCH // 2, "jit_compile": False, **options}
    network = {"hidden_sizes": (4,), "seed": seed}
    policy, critic = ppo_tf.mlp_policy(envs, **network), ppo_tf.mlp_critic(envs, **network)
    return ppo_tf.Learner(policy, critic, seed=seed, **options), envs


class Data:
    """A collector of finished rollouts; with `begin_episodes` it goes on where a checkpoint was."""

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
    """Drives one callback as `fit` does, with logs made up."""

    def __init__(self, callback, total=10, model=None, step=100):
        self.callback, self.step = callback, step
        callback.set_params({"total_steps": total * step})
        callback.set_model(model)
        callback.on_train_begin()

    def run(self, first, last, **logs):
        """Iterations first..last; a log's value may be a function of the iteration."""
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
    """A log without a value before an iteration."""
    return lambda i: value if i >= iteration else np.nan
