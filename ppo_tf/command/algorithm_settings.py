"""Declarations of what is learned: advantages, losses, optimization, networks, actions."""

from __future__ import annotations

from ppo_tf.command.declarations import Choice, Declaration

# Unless noted otherwise, defaults are from Schulman et al. 2017 (arXiv 1707.06347), Table 3, or
# from "The 37 implementation details of PPO" (ICLR blog 2022).

ADVANTAGES: tuple[Declaration, ...] = (
    Declaration(
        "estimator",
        str,
        "gae",
        "Advantage estimator.",
        choices=(
            Choice("gae", "generalised advantage estimation (Schulman et al. 2016)", "GAE"),
            Choice("n_step", "n_step rewards, then the critic's value", "NStep"),
            Choice("reward_to_go", "the sum of all future rewards", "RewardToGo"),
        ),
    ),
    Declaration(
        "n_step",
        int,
        5,
        "Number of rewards that are summed before the critic's value.",
        least=1,
        only_with={"estimator": ("n_step",)},
    ),
    Declaration("gamma", float, 0.99, "Discount factor per step, 0 to 1.", least=0, most=1),
    Declaration(
        "gae_lambda",
        float,
        0.95,
        "Lambda of GAE, the weight of longer returns, 0 to 1.",
        least=0,
        most=1,
        only_with={"estimator": ("gae",)},
    ),
    Declaration(
        "baseline",
        bool,
        True,
        "Whether the critic's value is subtracted from the sum of rewards.",
        only_with={"estimator": ("reward_to_go",)},
    ),
)

LOSSES: tuple[Declaration, ...] = (
    Declaration(
        "loss",
        str,
        "clip",
        "Policy loss.",
        choices=(
            Choice("clip", "PPO's clipped surrogate", "Clip"),
            Choice("kl_penalty", "PPO's surrogate with a KL penalty", "KLPenalty"),
            Choice("policy_gradient", "the policy gradient, without a ratio", "PolicyGradient"),
        ),
    ),
    Declaration(
        "clip_epsilon",
        float,
        0.2,
        "How far a clipped loss lets the probability ratio, or the value, move.",
        above=0,
        only_with={"loss": ("clip",), "value_loss": ("clipped",)},
    ),
    Declaration(
        "kl_coefficient",
        float,
        1.0,
        "Weight of the KL divergence, per nat.",
        least=0,
        only_with={"loss": ("kl_penalty",)},
    ),
    Declaration(
        "kl_target",
        float,
        None,
        "Target KL divergence per update for adapting kl_coefficient, nats.",
        above=0,
        optional=True,
        only_with={"loss": ("kl_penalty",)},
    ),
    Declaration(
        "entropy_coefficient", float, 0.0, "Weight of the entropy bonus, per nat.", least=0
    ),
    Declaration(
        "value_loss",
        str,
        "squared",
        "Loss of the critic.",
        choices=(
            Choice("squared", "the squared error", "SquaredError"),
            Choice("clipped", "the squared error with Baselines' value clip", "ClippedError"),
            Choice("huber", "squared near the target, linear far from it (Huber 1964)", "Huber"),
        ),
    ),
    Declaration("value_coefficient", float, 0.5, "Weight of the critic's loss.", least=0),
)

UPDATES: tuple[Declaration, ...] = (
    Declaration(
        "learning_rate",
        float,
        3e-4,
        "Initial learning rate of Adam.",
        above=0,
        most=1,
    ),
    Declaration(
        "learning_rate_schedule",
        str,
        "linear",
        "How the learning rate changes over the run.",
        choices=(
            Choice("constant", "stays the same"),
            Choice("linear", "falls linearly to 0", "linear_schedule"),
        ),
    ),
    Declaration(
        "max_gradient_norm", float, 0.5, "Global norm to which gradients are clipped.", above=0
    ),
    Declaration(
        "epochs",
        int,
        10,
        "Number of passes over the data per update.",
        least=1,
        most=2**31 - 1,
    ),
    Declaration(
        "minibatch_size",
        int,
        64,
        "Samples per gradient step; must divide horizon * num_envs.",
        least=1,
    ),
    Declaration(
        "early_stopping_kl",
        float,
        None,
        "KL divergence above which an update stops early, nats.",
        above=0,
        optional=True,
    ),
    Declaration(
        "recompute_advantages",
        bool,
        False,
        "Whether to recompute advantages before each epoch.",
        unless={"epochs": 1},
    ),
    Declaration(
        "standardize_advantages",
        bool,
        True,
        "Whether to scale advantages to mean 0, std 1 per minibatch.",
    ),
    Declaration(
        "reward_scaling",
        bool,
        True,
        "Whether to divide rewards by the running std of returns.",
    ),
)

NETWORKS: tuple[Declaration, ...] = (
    Declaration(
        "normalize_observations",
        bool,
        True,
        "Whether models normalise observations by running statistics.",
        only_for="Box observations that are no images",
    ),
    Declaration(
        "hidden_sizes",
        int,
        (64, 64),
        "Units of the hidden layers, comma-separated.",
        least=1,
        most=2**16,
    ),
    Declaration(
        "activation",
        str,
        "tanh",
        "Keras name of the hidden layers' activation.",
        unless={"hidden_sizes": ()},
    ),
    Declaration(
        "image_network",
        str,
        "auto",
        "Network that encodes images.",
        choices=(
            Choice("auto", "nature, or small if a side has fewer than 36 pixels"),
            Choice(
                "nature",
                "three convolutions and a dense layer (Mnih et al. 2015)",
                "nature_cnn",
            ),
            Choice(
                "impala",
                "fifteen convolutions with residual connections (Espeholt et al. 2018)",
                "impala_resnet",
            ),
            Choice("small", "a smaller nature, for images such as grid worlds", "small_cnn"),
        ),
        only_for="images",
    ),
    Declaration(
        "shared_trunk", bool, False, "Whether actor and critic share all layers but the last."
    ),
    Declaration(
        "cell",
        str,
        "none",
        "Recurrent cell after the hidden layers.",
        choices=(
            Choice("none", "no recurrent cell"),
            Choice("lstm", "long short-term memory, Keras' LSTMCell"),
            Choice("gru", "gated recurrent unit, Keras' GRUCell"),
        ),
    ),
    Declaration(
        "cell_units",
        int,
        64,
        "Units of the recurrent cell.",
        least=1,
        most=2**14,
        only_with={"cell": ("lstm", "gru")},
    ),
    Declaration(
        "sequence_length",
        int,
        32,
        "Steps that gradients reach back in recurrent models.",
        least=1,
        only_with={"cell": ("lstm", "gru")},
    ),
    Declaration(
        "actor_exclude",
        str,
        (),
        "Comma-separated keys of the observation that only the critic sees.",
    ),
)

_DIAGONAL = ("clipped_gaussian", "tanh_gaussian", "truncated_gaussian")

ACTIONS: tuple[Declaration, ...] = (
    Declaration(
        "continuous",
        str,
        "clipped_gaussian",
        "Distribution of Box actions.",
        choices=(
            Choice("clipped_gaussian", "Gaussian, clipped to the Box"),
            Choice("tanh_gaussian", "Gaussian, squashed into the Box by tanh", "TanhGaussian"),
            Choice("beta", "beta on (0, 1), rescaled to the Box", "UnimodalBeta"),
            Choice(
                "truncated_gaussian",
                "truncated Gaussian on [-1, 1], rescaled to the Box",
                "TruncatedGaussian",
            ),
            Choice(
                "full_covariance",
                "Gaussian with full covariance, clipped to the Box",
                "FullGaussian",
            ),
            Choice(
                "gsde",
                "Gaussian, noise held for several steps, clipped to the Box",
                "StateDependentExploration",
            ),
        ),
        only_for="Box actions",
    ),
    Declaration(
        "sde_period",
        int,
        4,
        "Steps for which noise is held.",
        least=1,
        only_with={"continuous": ("gsde",)},
        only_for="Box actions",
    ),
    Declaration(
        "initial_scale",
        float,
        1.0,
        "Initial standard deviation of a Gaussian, in half action ranges.",
        least=1e-6,  # with 1e-12 the first update is not finite
        only_with={"continuous": (*_DIAGONAL, "full_covariance", "gsde")},
        only_for="Box actions",
    ),
    Declaration(
        "state_dependent_scale",
        bool,
        False,
        "Whether the standard deviation depends on the state.",
        only_with={"continuous": _DIAGONAL},
        only_for="Box actions",
    ),
)
