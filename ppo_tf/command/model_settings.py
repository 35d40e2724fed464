"""Declarations of the models: networks and the distribution of actions."""

from __future__ import annotations

from ppo_tf.command.declarations import Choice, Declaration

_NETWORKS = (
    Choice("mlp", "dense layers of hidden_sizes units"),
    Choice("residual", "residual blocks with layer normalisation"),
)
_RESIDUAL = {"network": ("residual",), "critic_network": ("residual",)}

_MLPS = {"network": ("mlp",), "critic_network": ("mlp",)}

NETWORKS: tuple[Declaration, ...] = (
    Declaration(
        "normalize_observations",
        bool,
        True,
        "Whether models normalise observations by running statistics.",
        only_for="Box observations that are no images",
    ),
    Declaration(
        "network",
        str,
        "mlp",
        "Network of the actor, after what encodes images.",
        choices=_NETWORKS,
    ),
    Declaration(
        "critic_network",
        str,
        "mlp",
        "Network of the critic, likewise.",
        choices=_NETWORKS,
        unless={"shared_trunk": True},
    ),
    Declaration(
        "residual_width",
        int,
        256,
        "Units of a residual network.",
        least=1,
        most=2**14,
        only_with=_RESIDUAL,
    ),
    Declaration(
        "residual_blocks",
        int,
        2,
        "Blocks of a residual network.",
        least=1,
        most=100,
        only_with=_RESIDUAL,
    ),
    Declaration(
        "hidden_sizes",
        int,
        (64, 64),
        "Units of an mlp's hidden layers, comma-separated.",
        least=1,
        most=2**16,
        only_with=_MLPS,
    ),
    Declaration(
        "activation",
        str,
        "tanh",
        "Keras name of the hidden layers' activation.",
        only_with=_MLPS,
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
            Choice("categorical", "categoricals of evenly spaced values", "BinAction"),
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
        "bins",
        int,
        41,
        "Values per element of a categorical over a Box.",
        least=2,
        most=2**12,
        only_with={"continuous": ("categorical",)},
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
