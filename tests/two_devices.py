"""A program that learns on one device and on two logical CPU devices, and reports what it saw.

Logical devices must be made before TensorFlow has looked for devices, so tests run this program:

    python two_devices.py NAME,NAME,... FILE

It writes a JSON object to the file: for each name of `CASES` what its function returned.
"""

import dataclasses
import json
import pathlib
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import helpers
import keras
import numpy as np
import tensorflow as tf
from gymnasium.spaces import Discrete

import ppo_tf
from ppo_tf.learning.losses import Clip, EntropyBonus, KLPenalty, Sum
from ppo_tf.learning.replicas import scope_of
from ppo_tf.policies.policy_step import PolicyStep
from ppo_tf.training.checkpoints import learner_variables, restore_learner

BOX = helpers.spaces(helpers.box(3), helpers.box(2))
DISCRETE = helpers.spaces(helpers.box(3), Discrete(3))
HORIZON, NUM_ENVS, UPDATES = 9, 4, 20


@dataclasses.dataclass
class Pair:
    """The same learner on one device and on two.

    Args:
        strategy: of the two devices.
        envs: spaces of the environment.
        parts: function that returns policy, critic and further arguments of `Learner`.
        options: further arguments without variables.
    """

    strategy: tf.distribute.MirroredStrategy
    envs: Any
    parts: Callable[[], tuple[ppo_tf.Policy, keras.Model, dict[str, Any]]]
    options: dict[str, Any]

    def __post_init__(self):
        self.one, self.two = self.learner(None), self.learner(self.strategy)

    def learner(self, strategy):
        with scope_of(strategy):
            policy, critic, more = self.parts()
        options = {"epochs": 1, "jit_compile": False, **self.options, **more}
        return ppo_tf.Learner(policy, critic, strategy=strategy, **options)

    def trajectory(self, seed):
        """Data with invalid rows; in some, only those of the first environment count, or none."""
        made = helpers.trajectory(self.envs, self.one.policy, HORIZON, NUM_ENVS, seed)
        if seed % 5 == 4:
            made = made._replace(valid=made.valid & (np.arange(NUM_ENVS) < seed % 2))
        return made

    def learn(self, updates=UPDATES):
        """Updates both with the same data; returns how far they are apart."""
        weight = self.one.policy.trainable_variables[0]
        start, metrics = weight.numpy(), []
        for seed in range(updates):
            data = self.trajectory(seed)
            metrics.append((self.one.update(data), self.two.update(data)))
        return {
            "variables": self.apart(),
            "metrics": max(_apart(a, b) for a, b in metrics),
            "steps": [int(a["gradient_steps"]) for a, _ in metrics],
            "names": list(metrics[0][0]),
            "kl_coefficients": [a.get("kl_coefficient") for a, _ in metrics],
            "moved": float(np.abs(weight.numpy() - start).max()),
        }

    def apart(self):
        """The largest difference of a variable, relative where it is above 1."""
        named = zip(self.one.named_variables, self.two.named_variables, strict=True)
        assert all(a == b for a, b in named)
        pairs = zip(helpers.numbers(self.one), helpers.numbers(self.two), strict=True)
        return float(max(np.max(np.abs(a - b) / np.maximum(1.0, np.abs(a))) for a, b in pairs))

    def copies_apart(self):
        """The largest difference between a variable's copies on the two devices."""
        variables = self.two.variables
        values = [v.value if isinstance(v, keras.Variable) else v for v in variables]
        copies = [[x.numpy() for x in v.values] for v in values]
        return float(max(np.max(np.abs(a - b)) for a, b in copies))


def _apart(one, two):
    """The largest difference of a metric, relative where it is above 1."""
    assert list(one) == list(two)
    pairs = [(one[name], two[name]) for name in one if (one[name], two[name]) != (None, None)]
    return max(abs(a - b) / max(1.0, abs(a)) for a, b in pairs)


def adam(learning_rate=1e-2, **options):
    schedule = keras.optimizers.schedules.PolynomialDecay(learning_rate, 200, 1e-3)
    return keras.optimizers.Adam(schedule, epsilon=1e-5, **options)


class Activity(keras.layers.Layer):
    """Adds the mean square of what it sees as a loss, on rows that count and on others."""

    def call(self, x):
        self.add_loss(tf.reduce_mean(x**2))
        return x


def dense(units, seed, **options):
    return keras.layers.Dense(units, kernel_initializer=initializer(seed), **options)


def initializer(seed):
    return keras.initializers.GlorotUniform(seed=seed)


def usual(strategy, **options):
    """Normalisers, reward scaling, a schedule, a clipped global norm, a penalty that adapts, early
    stopping, losses that a model adds, minibatches of an odd size."""

    def parts():
        inputs = keras.Input((3,))
        hidden = ppo_tf.RunningNormalization()(inputs)
        hidden = Activity()(dense(8, 2, activation="tanh")(hidden))
        values = dense(1, 3, kernel_regularizer=keras.regularizers.L2(0.1))(hidden)
        critic = keras.Model(inputs, keras.ops.squeeze(values, -1))
        penalty = KLPenalty(1.0, 0.003, surrogate=Clip())
        more = {
            "loss": Sum([penalty, EntropyBonus(0.01)]),
            "optimizer": adam(global_clipnorm=0.5),
            "reward_transformation": ppo_tf.RewardScaling(),
        }
        return helpers.make_policy(BOX, normalize=True), critic, more

    options = {"minibatch_size": 9, "epochs": 2, "early_stopping_kl": 0.003, **options}
    return Pair(strategy, BOX, parts, options)


def everything(strategy):
    """The usual learner, and what can be done with it afterwards."""
    pair = usual(strategy)
    reductions = []
    reduce_to = strategy.extended.reduce_to
    strategy.extended.reduce_to = lambda *args: reductions.append(1) or reduce_to(*args)
    report = pair.learn()
    strategy.extended.reduce_to = reduce_to
    report |= {"reductions": len(reductions), "copies": pair.copies_apart()}
    report["undone"] = undone(pair)
    report["restored"] = [
        restored(pair, pair.two, pair.one),
        restored(pair, pair.one, pair.two),
    ]
    return report


def restored(pair, source, target):
    """How far learners are apart when one has the other's checkpoint, and an update later."""
    target.update(pair.trajectory(60))
    moved = pair.apart()
    restore_learner(target, learner_variables(source))
    exact = max(pair.apart(), pair.copies_apart())
    data = pair.trajectory(61)
    pair.one.update(data), pair.two.update(data)
    return {"moved": moved, "exact": exact, "later": pair.apart()}


def undone(pair):
    """What an update with a NaN leaves, and on which devices."""
    before = helpers.numbers(pair.two)
    data = pair.trajectory(50)
    data.observations[2, 1, 0] = np.nan
    data.valid[2, 1] = True
    try:
        pair.two.update(data)
    except ppo_tf.NonFiniteError as error:
        message = str(error)
    same = zip(before, helpers.numbers(pair.two), strict=True)
    return {
        "message": message,
        "same": all(np.array_equal(a, b) for a, b in same),
        "copies": pair.copies_apart(),
    }


def batch(strategy):
    """Standardisation of the whole batch, new estimates in each epoch, categories."""

    def parts():
        return helpers.make_policy(DISCRETE), helpers.make_critic(DISCRETE), {"optimizer": adam()}

    options = {"standardize_advantages": "batch", "recompute_advantages": True}
    return Pair(strategy, DISCRETE, parts, {"minibatch_size": 12, "epochs": 2, **options}).learn()


def shared(strategy):
    """A trunk in common, and a weight that has no gradient."""

    def parts():
        inputs = keras.Input((3,))
        hidden = dense(8, 1, activation="tanh")(inputs)
        scale = ppo_tf.StateIndependentScale()(loc := dense(2, 2)(hidden))
        unused = dense(2, 4)(hidden)
        like = helpers.make_policy(BOX)
        actor = keras.Model(
            inputs, {"loc": loc + 0.0 * keras.ops.stop_gradient(unused), "scale_diag": scale}
        )
        critic = keras.Model(inputs, keras.ops.squeeze(dense(1, 3)(hidden), -1))
        policy = ppo_tf.Policy(actor, like.family, like.action_map)
        return policy, critic, {"optimizer": adam(weight_decay=0.01, clipnorm=1.0)}

    return Pair(strategy, BOX, parts, {"minibatch_size": 12}).learn()


def recurrent(strategy):
    """Memories, whose states are carried on."""

    def parts():
        models = helpers.make_policy(BOX, cell="gru"), helpers.make_critic(BOX, cell="gru")
        return *models, {"optimizer": adam()}

    return Pair(strategy, BOX, parts, {"sequence_length": 3, "minibatch_size": 12}).learn()


def reused(strategy):
    """Old rollouts, weighted, and a critic with dropout."""

    def parts():
        inputs = keras.Input((3,))
        hidden = keras.layers.Dropout(0.2, seed=1)(dense(8, 2, activation="tanh")(inputs))
        critic = keras.Model(inputs, keras.ops.squeeze(dense(1, 3)(hidden), -1))
        return helpers.make_policy(BOX), critic, {"optimizer": adam()}

    return Pair(strategy, BOX, parts, {"reuse": 2, "minibatch_size": 12}).learn()


def compiled(strategy):
    """Compiled by XLA: the whole update on one device, the gradients on two."""
    return usual(strategy, jit_compile=True).learn()


def acting(strategy):
    """The exported policy, and the weights that an engine gets."""
    envs = ppo_tf.make_envs("Pendulum-v1", 2)
    with strategy.scope():
        policy = ppo_tf.mlp_policy(envs, hidden_sizes=(8,), seed=1)
    observations = helpers.observe(envs.single_observation_space, (5,))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "policy"
        ppo_tf.export_policy(policy, path)
        signature = tf.saved_model.load(str(path)).signatures["serving_default"]
        (action,) = signature(observation=tf.constant(observations)).values()
    expected = policy(observations).numpy()
    pairs = zip(PolicyStep(policy, envs).read_weights(), policy.actor.weights, strict=True)
    return {
        "exported": float(np.abs(action - expected).max()),
        "weights": all(np.array_equal(a, b.numpy()) for a, b in pairs),
        "collected": len(ppo_tf.VectorCollector(envs, policy, 3).collect()[0].rewards),
    }


def refused(strategy):
    """The message for minibatches that are too small."""
    learner = usual(strategy, standardize_advantages="off", minibatch_size=1).two
    try:
        learner.check_batch(HORIZON, NUM_ENVS)
    except ValueError as error:
        return str(error)


CASES = {
    case.__name__: case
    for case in (everything, refused, batch, shared, recurrent, reused, compiled, acting)
}


def main(names, path):
    cpu = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    report = {name: CASES[name](strategy) for name in names.split(",")}
    pathlib.Path(path).write_text(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
