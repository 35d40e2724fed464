"""SBX: Stable-Baselines3's interface on JAX."""

from sbx import PPO

from field.job import HIDDEN_SIZES
from field.sb3 import learn


def train(job, clock):
    """Trains."""
    learn(job, clock, PPO, {"net_arch": list(HIDDEN_SIZES)})
