"""rsl_rl. It brings no environments: here, Gymnasium's vector ones behind its interface."""

import gymnasium
import torch
from gymnasium.vector import AutoresetMode
from rsl_rl.env import VecEnv
from rsl_rl.runners import OnPolicyRunner
from tensordict import TensorDict

from field.job import HIDDEN_SIZES
from field.vector import make_vector


class Environments(VecEnv):
    """Gymnasium's vector environments as rsl_rl sees them: tensors, reset in the same step."""

    cfg = {}  # noqa: RUF012
    device = "cpu"

    def __init__(self, envs):
        self.envs = envs
        self.num_envs, (self.num_actions,) = envs.num_envs, envs.single_action_space.shape
        self.max_episode_length = envs.spec.max_episode_steps
        self.episode_length_buf = torch.zeros(self.num_envs, dtype=torch.long)
        self.low, self.high = (
            torch.from_numpy(bound) for bound in (envs.action_space.low, envs.action_space.high)
        )
        self.observations = envs.reset()[0]

    def get_observations(self):
        """Returns the latest observations."""
        observations = torch.as_tensor(self.observations, dtype=torch.float32)
        return TensorDict({"policy": observations}, [self.num_envs])

    def step(self, actions):
        """Steps all environments."""
        actions = actions.clamp(self.low, self.high).numpy()
        self.observations, rewards, terminated, truncated, _ = self.envs.step(actions)
        return (
            self.get_observations(),
            torch.as_tensor(rewards, dtype=torch.float32),
            torch.from_numpy(terminated | truncated),
            {"time_outs": torch.from_numpy(truncated)},
        )


def train(job, clock):
    """Trains."""
    envs = make_vector(job, autoreset_mode=AutoresetMode.SAME_STEP)
    if isinstance(envs.single_action_space, gymnasium.spaces.Discrete):
        raise NotImplementedError("rsl_rl has distributions for continuous actions only")
    network = {"class_name": "MLPModel", "hidden_dims": HIDDEN_SIZES, "activation": "tanh"}
    settings = {
        "num_steps_per_env": job.horizon,
        "save_interval": 0,
        "check_for_nan": False,
        "torch_compile_mode": "default" if job.options["compile"] else None,
        "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
        "actor": network | {"distribution_cfg": {"class_name": "GaussianDistribution"}},
        "critic": network,
        "algorithm": {
            "class_name": "PPO",
            "num_learning_epochs": job.epochs,
            "num_mini_batches": job.minibatches,
            "schedule": "fixed",  # "adaptive" would also compute divergences
        },
    }
    runner = OnPolicyRunner(Environments(envs), settings)
    for _ in range(job.all_iterations):
        runner.learn(1)
        clock.tick()
