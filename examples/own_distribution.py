"""A distribution of your own: a Beta for bounded actions.

python examples/own_distribution.py
"""

import ppo_tf  # first, so that TensorFlow loads without its start-up messages
import keras
import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions


@keras.saving.register_keras_serializable("examples")
def beta_distribution(alpha, beta):
    """A Beta on [0, 1] per action element, from the actor's outputs alpha and beta."""
    # Not 1.0: softplus underflows to 0, and a Beta with a concentration of 1 has no mode in TFP.
    above_one = [1.01 + tf.nn.softplus(x) for x in (alpha, beta)]
    return tfd.Independent(tfd.Beta(*above_one), reinterpreted_batch_ndims=1)


@keras.saving.register_keras_serializable("examples")
def torque(raw):
    """From [0, 1] to Pendulum's torque in [-2, 2] N m."""
    return 4.0 * raw - 2.0


def main(total_steps=60_000):
    """Trains on Pendulum-v1, whose best return is about -150."""
    envs = ppo_tf.make_envs("Pendulum-v1", num_envs=8, seed=0)
    actor = ppo_tf.mlp(envs, {"alpha": 1, "beta": 1}, seed=1)  # outputs by name, and their sizes
    learner = ppo_tf.Learner(
        ppo_tf.Policy(actor, beta_distribution, torque),
        ppo_tf.mlp_critic(envs, seed=2),
        ppo_tf.default_optimizer(1e-3),
        ppo_tf.GAE(gamma=0.9),
        reward_transformation=ppo_tf.RewardScaling(gamma=0.9),
    )
    before = ppo_tf.evaluate(learner.policy, "Pendulum-v1", episodes=20)
    ppo_tf.fit(learner, envs, total_steps=total_steps)
    after = ppo_tf.evaluate(learner.policy, "Pendulum-v1", episodes=20)
    envs.close()
    print(f"return {before.mean:.1f} before training, {after.mean:.1f} after")


if __name__ == "__main__":
    main()
