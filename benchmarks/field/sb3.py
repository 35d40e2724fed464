"""Stable-Baselines3."""

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from field.job import HIDDEN_SIZES


def train(job, clock):
    """Trains."""
    hidden = list(HIDDEN_SIZES)
    learn(job, clock, PPO, {"net_arch": {"pi": hidden, "vf": hidden}})


def learn(job, clock, algorithm, network):
    """Trains an algorithm with the interface of Stable-Baselines3."""

    class Ticks(BaseCallback):
        """A rollout begins where the iteration before has ended."""

        def _on_rollout_start(self):
            if self.num_timesteps:
                clock.tick()

        def _on_step(self):
            return True

    envs = make_vec_env(
        job.env,
        n_envs=job.num_envs,
        vec_env_cls=SubprocVecEnv if job.options["vector"] == "processes" else DummyVecEnv,
    )
    model = algorithm(
        "MlpPolicy",
        envs,
        n_steps=job.horizon,
        batch_size=job.minibatch,
        n_epochs=job.epochs,
        policy_kwargs=network,
        device="cpu",
    )
    model.learn(job.steps * job.all_iterations, callback=Ticks())
    clock.tick()
    envs.close()
