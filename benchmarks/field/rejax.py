"""Rejax: environments of gymnax and training in one compiled JAX function."""

import gymnax
import jax
from rejax import PPO

from field.job import HIDDEN_SIZES, WARM_UP


def train(job, clock):
    """Trains with `train_iteration`, which `PPO.train` repeats between its evaluations."""
    if job.env not in gymnax.registered_envs:
        raise NotImplementedError(f"gymnax has no {job.env}, and Rejax's bridge knows no MuJoCo")
    ppo = PPO.create(
        env=job.env,
        agent_kwargs={"hidden_layer_sizes": HIDDEN_SIZES, "activation": "tanh"},
        num_envs=job.num_envs,
        num_steps=job.horizon,
        num_epochs=job.epochs,
        num_minibatches=job.minibatches,
    )

    @jax.jit
    def iterate(state, iterations):
        return jax.lax.fori_loop(0, iterations, lambda _, s: ppo.train_iteration(s), state)

    state = ppo.init_state(jax.random.key(0))
    # The second call compiles anew: types of the first state differ from those that come back.
    for iterations in (1, WARM_UP - 1, job.iterations):
        state = jax.block_until_ready(iterate(state, iterations))
        clock.tick(iterations)
