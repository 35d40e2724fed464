"""RLlib on PyTorch, with its current interface (env runners, learner, module)."""

import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from field.job import HIDDEN_SIZES


def train(job, clock):
    """Trains. With 0 env runners everything happens in this process."""
    runners = job.options["env_runners"]
    config = (
        PPOConfig()
        .environment(job.env)
        .framework("torch")
        .env_runners(
            num_env_runners=runners,
            num_envs_per_env_runner=job.num_envs // max(runners, 1),
            gym_env_vectorize_mode=job.options["vector"],
            rollout_fragment_length=job.horizon,
        )
        .learners(num_learners=0)
        .training(
            train_batch_size_per_learner=job.steps,
            minibatch_size=job.minibatch,
            num_epochs=job.epochs,
            clip_param=0.2,
            lambda_=0.95,
            use_kl_loss=False,
        )
        .rl_module(
            model_config=DefaultModelConfig(
                fcnet_hiddens=list(HIDDEN_SIZES), fcnet_activation="tanh", vf_share_layers=False
            )
        )
        .reporting(min_time_s_per_iteration=None)
    )
    ray.init(include_dashboard=False, log_to_driver=False)
    algorithm = config.build_algo()
    for _ in range(job.all_iterations):
        algorithm.train()
        clock.tick()
    algorithm.stop()
    ray.shutdown()
