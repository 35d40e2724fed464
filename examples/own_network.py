"""A network of your own: any Keras model whose outputs are the distribution's parameters by name.

python examples/own_network.py
"""

import ppo_tf  # first, so that TensorFlow loads without its start-up messages
import keras


def residual_actor(envs, blocks=2, units=64):
    """Observations to logits, through residual blocks with layer normalisation."""
    inputs, x = ppo_tf.models.observation_features(envs.single_observation_space)
    x = keras.layers.Dense(units)(x)
    for _ in range(blocks):
        normalized = keras.layers.LayerNormalization()(x)
        x = x + keras.layers.Dense(units, activation="tanh")(normalized)
    logits = keras.layers.Dense(int(envs.single_action_space.n), name="logits")(x)
    return keras.Model(inputs, {"logits": logits})


def main(total_steps=60_000):
    """Trains on CartPole-v1, whose best return is 500."""
    keras.utils.set_random_seed(1)
    envs = ppo_tf.make_envs("CartPole-v1", num_envs=8, seed=0)
    spec = ppo_tf.action_spec(envs.single_action_space)
    learner = ppo_tf.Learner(
        ppo_tf.Policy(residual_actor(envs), spec.family, spec.action_map),
        ppo_tf.mlp_critic(envs, seed=2),
        ppo_tf.default_optimizer(1e-3),
        ppo_tf.GAE(gamma=0.98),
        reward_transformation=ppo_tf.RewardScaling(gamma=0.98),
    )
    before = ppo_tf.evaluate(learner.policy, "CartPole-v1", episodes=20)
    ppo_tf.fit(learner, envs, total_steps=total_steps)
    after = ppo_tf.evaluate(learner.policy, "CartPole-v1", episodes=20)
    envs.close()
    print(f"return {before.mean:.1f} before training, {after.mean:.1f} after")


if __name__ == "__main__":
    main()
