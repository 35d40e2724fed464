"""CleanRL: its own scripts, unchanged, timed by the moments at which they log their speed."""

import importlib.util
import runpy
import sys
import types
from pathlib import Path

import gymnasium


def train(job, clock):
    """Trains. The script makes its environments itself, in this process."""

    class Writer:
        """Replaces TensorBoard's writer: writes nothing, ticks when the speed is logged."""

        def __init__(self, folder):
            pass

        def add_text(self, *args):
            pass

        def add_scalar(self, name, *args):
            if name == "charts/SPS":
                clock.tick()

        def close(self):
            pass

    sys.modules["torch.utils.tensorboard"] = types.SimpleNamespace(SummaryWriter=Writer)
    wrapper = gymnasium.wrappers.TransformObservation
    # Written for Gymnasium 0.28; since 1.0 this wrapper also wants the space after it.
    gymnasium.wrappers.TransformObservation = lambda env, function: wrapper(
        env, function, env.observation_space
    )
    discrete = isinstance(gymnasium.make(job.env).action_space, gymnasium.spaces.Discrete)
    script = "ppo.py" if discrete else "ppo_continuous_action.py"
    folder = importlib.util.find_spec("cleanrl").submodule_search_locations[0]
    sys.argv = [str(Path(folder, script)), "--env-id", job.env]
    for flag, value in {
        "num-envs": job.num_envs,
        "num-steps": job.horizon,
        "update-epochs": job.epochs,
        "num-minibatches": job.minibatches,
        "total-timesteps": job.steps * job.all_iterations,
    }.items():
        sys.argv += [f"--{flag}", str(value)]
    runpy.run_path(sys.argv[0], run_name="__main__")
