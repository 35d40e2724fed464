"""skrl, on PyTorch or JAX, whichever is faster by trial."""

import importlib

import gymnasium

from field.job import HIDDEN_SIZES
from field.vector import make_vector


def train(job, clock):
    """Trains with its sequential trainer."""
    framework = job.options["framework"]
    ppo = importlib.import_module(f"skrl.agents.{framework}.ppo")
    memories = importlib.import_module(f"skrl.memories.{framework}")
    trainers = importlib.import_module(f"skrl.trainers.{framework}")
    wrappers = importlib.import_module(f"skrl.envs.wrappers.{framework}")

    class Ticking(ppo.PPO):
        """Ticks when an update is done."""

        def post_interaction(self, *, timestep, timesteps):
            super().post_interaction(timestep=timestep, timesteps=timesteps)
            if (timestep + 1) % job.horizon == 0:
                clock.tick()

    envs = wrappers.wrap_env(make_vector(job), wrapper="gymnasium", verbose=False)
    settings = ppo.PPO_CFG(
        rollouts=job.horizon, learning_epochs=job.epochs, mini_batches=job.minibatches
    )
    settings.experiment.write_interval = settings.experiment.checkpoint_interval = 0
    agent = Ticking(
        models=make_models(framework, envs),
        memory=memories.RandomMemory(
            memory_size=job.horizon, num_envs=job.num_envs, device=envs.device
        ),
        observation_space=envs.observation_space,
        action_space=envs.action_space,
        device=envs.device,
        cfg=settings,
    )
    timesteps = {"timesteps": job.horizon * job.all_iterations}
    quiet = {"headless": True, "disable_progressbar": True}
    trainers.SequentialTrainer(cfg=timesteps | quiet, env=envs, agents=agent).train()


def make_models(framework, envs):
    """Returns actor and critic, by skrl's own instantiators."""
    build = importlib.import_module(f"skrl.utils.model_instantiators.{framework}")
    layers = {"name": "net", "input": "OBSERVATIONS", "layers": list(HIDDEN_SIZES)}
    shared = {
        "observation_space": envs.observation_space,
        "action_space": envs.action_space,
        "device": envs.device,
        "network": [layers | {"activations": "tanh"}],
    }
    if isinstance(envs.action_space, gymnasium.spaces.Discrete):
        policy = build.categorical_model(output="ACTIONS", **shared)
    else:
        policy = build.gaussian_model(output="ACTIONS", clip_actions=True, **shared)
    models = {"policy": policy, "value": build.deterministic_model(output="ONE", **shared)}
    if framework == "jax":
        for role, model in models.items():
            model.init_state_dict(role=role)
    return models
