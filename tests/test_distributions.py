"""Families of distributions: densities against integrals, samples against densities."""

import json

import gymnasium
import keras
import numpy as np
import pytest
import reference_densities as reference
import tensorflow as tf
import tensorflow_probability as tfp

import ppo_tf
from ppo_tf import ops
from ppo_tf.actions import maps as action_maps
from ppo_tf.actions.densities import CentredTruncatedNormal
from ppo_tf.actions.distributions import (
    FullGaussian,
    Joint,
    MultiBernoulli,
    MultiCategorical,
    StateDependentExploration,
    TanhGaussian,
    TruncatedGaussian,
    UnimodalBeta,
    deserialize_family,
    noise_of,
    serialize_family,
)
from ppo_tf.learning import diagnostics

pytestmark = pytest.mark.usefixtures("grappler")

tfd = tfp.distributions
FAMILIES = {  # with the shapes of their parameters without the batch axis
    "categorical": (tfd.Categorical, {"logits": (4,)}),
    "multi_categorical": (MultiCategorical((2, 5, 3)), {"logits": (10,)}),
    "multi_bernoulli": (MultiBernoulli(), {"logits": (3,)}),
    "gaussian": (tfd.MultivariateNormalDiag, {"loc": (2,), "scale_diag": (2,)}),
    "tanh_gaussian": (TanhGaussian(), {"loc": (2,), "scale_diag": (2,)}),
    "beta": (UnimodalBeta(), {"concentration1": (2,), "concentration0": (2,)}),
    "truncated_gaussian": (TruncatedGaussian(), {"loc": (2,), "scale_diag": (2,)}),
    "full_gaussian": (FullGaussian(), {"loc": (3,), "scale_tril": (6,)}),
    "gsde": (StateDependentExploration(3), {"loc": (2,), "directions": (4, 2)}),
}
FAMILIES["joint"] = (
    Joint(
        {
            "arm/0": MultiCategorical((2, 3)),
            "arm/1": tfd.MultivariateNormalDiag,
            "gripper": MultiBernoulli(),
            "wheel": tfd.Categorical,
        }
    ),
    {
        "arm/0": {"logits": (5,)},
        "arm/1": {"loc": (2,), "scale_diag": (2,)},
        "gripper": {"logits": (2,)},
        "wheel": {"logits": (3,)},
    },
)
FROM_NOISE = [name for name in FAMILIES if noise_of(FAMILIES[name][0]) is not None]
each_family = pytest.mark.parametrize("name", FAMILIES)
each_from_noise = pytest.mark.parametrize("name", FROM_NOISE)
SEED = tf.constant([3, 4])


def parameters_of(shapes, batch, seed, size=1.0, same=False):
    """Random parameters [batch, ...], optionally the same in every row."""
    rng = np.random.default_rng(seed)

    def build(shapes):
        if isinstance(shapes, dict):
            return {key: build_named(key, shape) for key, shape in shapes.items()}
        raise TypeError(shapes)

    def build_named(key, shape):
        if isinstance(shape, dict):
            return build(shape)
        value = size * rng.normal(size=(1 if same else batch, *shape))
        value = np.broadcast_to(value, (batch, *shape))
        return tf.constant(np.exp(0.5 * value) if key == "scale_diag" else value, tf.float32)

    return build(shapes)


def example(name, batch=5, seed=0, **options):
    family, shapes = FAMILIES[name]
    return family(**parameters_of(shapes, batch, seed, **options))


def flat(raw):
    """Raw actions as float64 [n, elements], the parts of a joint side by side."""
    leaves = [np.array(x, np.float64) for x in tf.nest.flatten(raw)]
    return np.concatenate([x.reshape(len(x), -1) for x in leaves], axis=1)


def standard_errors(values, expected):
    """How many standard errors the means of values [n, ...] are from those expected."""
    error = values.std(axis=0) / np.sqrt(len(values))
    return np.abs(values.mean(axis=0) - expected) / np.maximum(error, 1e-6)


# Properties of all families.


@each_family
def test_eager_graph_and_xla_agree(name):
    family, shapes = FAMILIES[name]
    parameters, other = (parameters_of(shapes, 5, seed) for seed in (0, 1))
    # A copy: TFP remembers the noise behind its own samples, and gives it no gradient.
    raw = tf.nest.map_structure(tf.identity, family(**parameters).sample(seed=SEED))

    def compute(parameters):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            new, old = family(**parameters), family(**other)
            results = [new.log_prob(raw), new.entropy(), old.kl_divergence(new)]
            assert all(x.shape == (5,) for x in results)  # known while tracing
            total = tf.add_n(results)
        return results, new.mode(), tape.gradient(total, parameters)

    eager = compute(parameters)
    for jit_compile in (False, True):
        compiled = tf.function(compute, jit_compile=jit_compile)(parameters)
        for a, b in zip(tf.nest.flatten(eager), tf.nest.flatten(compiled), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
            assert np.isfinite(a).all()


@each_family
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_seed_decides_the_samples(name, jit_compile):
    family, shapes = FAMILIES[name]
    parameters = parameters_of(shapes, 50, 0)
    sample = tf.function(
        lambda seed: family(**parameters).sample(seed=seed), jit_compile=jit_compile
    )
    first, again, other = (flat(sample(tf.constant(s))) for s in ([1, 2], [1, 2], [1, 3]))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=0).all()


@each_family
def test_entropy_and_divergence_are_the_means_over_samples(name):
    """H = -E log p and KL(p || q) = E log p - log q, within 4.5 standard errors."""
    count = 40_000
    p, q = (example(name, count, seed, same=True, size=0.7) for seed in (0, 1))
    raw = p.sample(seed=SEED)
    log_p = p.log_prob(raw).numpy().astype(np.float64)
    surprise = -log_p
    if name == "tanh_gaussian":  # of the squashed action, whose density is p(x) / slope
        surprise += np.log(1 - np.tanh(np.float64(raw)) ** 2).sum(-1)
    assert standard_errors(surprise, p.entropy()[0]) < 4.5
    assert standard_errors(log_p - q.log_prob(raw).numpy(), p.kl_divergence(q)[0]) < 4.5
    assert p.kl_divergence(q)[0] > 0.01
    np.testing.assert_allclose(p.kl_divergence(p), 0.0, atol=1e-6)


@each_family
def test_the_divergence_is_not_an_estimate(name):
    p, q = example(name, seed=0), example(name, seed=1)
    exact = diagnostics.divergence(p, q, p.sample(seed=SEED))
    np.testing.assert_array_equal(exact, p.kl_divergence(q))


@each_family
def test_no_sample_is_more_likely_than_the_mode(name):
    p = example(name, 2000, same=True)
    assert (p.log_prob(p.sample(seed=SEED)) <= p.log_prob(p.mode()) + 1e-4).numpy().all()


@pytest.mark.parametrize(
    "name", ["gaussian", "tanh_gaussian", "beta", "truncated_gaussian", "full_gaussian", "gsde"]
)
def test_samples_have_the_mean(name):
    p = example(name, 40_000, same=True)
    assert (standard_errors(flat(p.sample(seed=SEED)), p.mean()[0]) < 4.5).all()


@each_family
def test_extreme_parameters_leave_everything_finite(name):
    family, shapes = FAMILIES[name]

    @tf.function(jit_compile=True)
    def compute(parameters, other):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            p = family(**parameters)
            raw = tf.nest.map_structure(tf.stop_gradient, p.sample(seed=SEED))
            numbers = [p.log_prob(raw), p.entropy(), family(**other).kl_divergence(p)]
            total = tf.add_n(numbers)
        return numbers, tape.gradient(total, parameters), raw, p.mode()

    clip = {"scale_diag": lambda x: tf.clip_by_value(x, 1e-3, 1e3)}
    for size in (30.0, 1e-3):
        parameters, other = (parameters_of(shapes, 64, seed, size=size) for seed in (0, 1))
        for nest in (parameters, other, parameters.get("arm/1", {}), other.get("arm/1", {})):
            nest.update({k: clip[k](v) for k, v in nest.items() if k in clip})
        for x in tf.nest.flatten(compute(parameters, other)):
            assert np.isfinite(x.numpy()).all()
    assert compute.experimental_get_tracing_count() == 1


@each_family
def test_a_family_survives_serialization_through_json(name):
    family, shapes = FAMILIES[name]
    restored = deserialize_family(json.loads(json.dumps(serialize_family(family))))
    assert restored == family
    parameters = parameters_of(shapes, 5, 0)
    for a, b in zip(
        tf.nest.flatten(family(**parameters).sample(seed=SEED)),
        tf.nest.flatten(restored(**parameters).sample(seed=SEED)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("joint", "gsde")])
def test_a_policy_of_the_family_is_saved_with_it(name, tmp_path):
    family, shapes = FAMILIES[name]
    envs = gymnasium.spaces.Box(-1.0, 1.0, (3,))
    sizes = {key: shape[0] for key, shape in shapes.items()}
    spec = ppo_tf.ActionSpec(family, sizes, action_maps.DiscreteAction())
    actor = ppo_tf.mlp_actor(envs, spec, hidden_sizes=(4,), seed=1)
    policy = ppo_tf.Policy(actor, family, spec.action_map)
    policy.save(tmp_path / "policy.keras")
    loaded = keras.saving.load_model(tmp_path / "policy.keras")
    observations = np.ones((4, 3), np.float32)
    assert loaded.family == family
    np.testing.assert_array_equal(
        loaded.sample(observations, SEED), policy.sample(observations, SEED)
    )


# Noise drawn in advance.


def test_which_families_can_be_sampled_from_noise():
    assert sorted(set(FAMILIES) - set(FROM_NOISE)) == ["beta", "truncated_gaussian"]
    assert noise_of(Joint({"a": tfd.Categorical, "b": UnimodalBeta()})) is None
    assert noise_of(lambda loc: tfd.Normal(loc, 1.0)) is None


def draw(name, batch, steps, **options):
    """A family's parameters, its noise and the raw actions of every step, [steps, B, ...]."""
    family, shapes = FAMILIES[name]
    parameters = parameters_of(shapes, batch, 0, **options)
    way = noise_of(family)
    noise = way.draw(np.random.default_rng(0), steps, parameters)
    raw = [
        way.from_noise(parameters, tf.nest.map_structure(lambda x, t=t: x[t], noise))
        for t in range(steps)
    ]
    return parameters, noise, raw


@each_from_noise
def test_noise_gives_samples_of_the_same_distribution(name):
    """Same types and shapes; means, squares and products agree within 5 standard errors."""
    count = 40_000
    _, _, (ours,) = draw(name, count, 1, same=True)
    theirs = example(name, count, same=True).sample(seed=SEED)
    for a, b in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
    ours, theirs = flat(ours), flat(theirs)

    def moments(x):
        columns = range(x.shape[1])
        counts = [x == k for k in range(5)]  # the frequency of every category, where there are any
        products = [x[:, [i]] * x[:, [j]] for i in columns for j in columns if i <= j]
        return np.concatenate([x, *products, *counts], axis=1)

    a, b = moments(ours), moments(theirs)
    error = np.sqrt((a.var(axis=0) + b.var(axis=0)) / count)
    assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) <= 5 * error + 1e-12).all()


@each_from_noise
def test_noise_is_float32_with_a_row_per_step_and_environment(name):
    parameters, noise, _ = draw(name, 6, 4)
    for leaf in tf.nest.flatten(noise):
        assert leaf.dtype == np.float32 and leaf.shape[:2] == (4, 6)
        assert len(np.unique(leaf[:1])) == leaf[:1].size  # every environment has its own
    way = noise_of(FAMILIES[name][0])
    again = way.draw(np.random.default_rng(0), 4, parameters)
    for a, b in zip(tf.nest.flatten(noise), tf.nest.flatten(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_gsde_holds_its_noise_for_a_period():
    _, noise, raw = draw("gsde", 2, 8)  # a period of 3 steps
    assert [len(np.unique(noise[t : t + 2], axis=0)) for t in range(7)] == [1, 1, 2, 1, 1, 2, 1]
    np.testing.assert_array_equal(raw[0], raw[2])
    assert (raw[2].numpy() != raw[3].numpy()).all()


@each_from_noise
def test_litert_samples_as_tensorflow_does(name):
    from ai_edge_litert.interpreter import Interpreter

    parameters, noise, (expected,) = draw(name, 7, 1)
    noise = tf.nest.map_structure(lambda x: tf.constant(x[0]), noise)
    leaves = tf.nest.flatten((parameters, noise))

    def act(*inputs):
        return tf.nest.flatten(
            noise_of(FAMILIES[name][0]).from_noise(
                *tf.nest.pack_sequence_as((parameters, noise), inputs)
            )
        )

    specs = [tf.TensorSpec(x.shape, x.dtype, name=f"x{i}") for i, x in enumerate(leaves)]
    function = tf.function(act, autograph=False).get_concrete_function(*specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    interpreter = Interpreter(model_content=converter.convert())  # built-in operations only
    interpreter.allocate_tensors()
    index = {
        d["name"].removeprefix("serving_default_").split(":")[0]: d["index"]
        for d in interpreter.get_input_details()
    }
    for i, leaf in enumerate(leaves):
        interpreter.set_tensor(index[f"x{i}"], leaf.numpy())
    interpreter.invoke()
    details = sorted(interpreter.get_output_details(), key=lambda d: d["name"])
    for detail, leaf in zip(details, tf.nest.flatten(expected), strict=True):
        got = interpreter.get_tensor(detail["index"])
        assert got.dtype == leaf.numpy().dtype
        np.testing.assert_allclose(got, leaf, rtol=1e-5, atol=1e-5)


# Continuous families against integrals in float64.

# (loc, scale); the smallest and largest are far outside what training meets.
GAUSSIANS = [(0.0, 1.0), (0.7, 0.3), (-2.0, 0.5), (0.9, 1e-3), (0.2, 5.0), (3.0, 30.0), (0.1, 1e3)]
BETAS = [(1.0, 1.0), (1.0, 4.0), (2.5, 1.3), (30.0, 70.0), (300.0, 300.0), (1.0001, 200.0)]


def inverse_softplus(x):
    return np.where(x > 30, x, np.log(np.expm1(np.clip(x, 1e-30, 30))))


def beta_of(*concentrations):
    a, b = (inverse_softplus(np.array([[c]]) - 1) for c in concentrations)
    return UnimodalBeta()(tf.constant(a, tf.float32), tf.constant(b, tf.float32))


def truncated_of(loc, scale):
    loc = np.arctanh(np.clip(loc, -0.999999, 0.999999))
    return TruncatedGaussian()(tf.constant([[loc]], tf.float32), tf.constant([[scale]], tf.float32))


def beta_peak(a, b):
    return a / (a + b), np.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))


TRUNCATED = [(loc, scale) for loc, scale in GAUSSIANS if abs(loc) < 1]
BOUNDED = [
    *[(beta_of, reference.beta, (0.0, 1.0), beta_peak, c) for c in BETAS],
    *[
        (truncated_of, reference.truncated_gaussian, (-1.0, 1.0), lambda *peak: peak, c)
        for c in TRUNCATED
    ],
]


@pytest.mark.parametrize(("make", "density", "support", "peak", "case"), BOUNDED)
def test_bounded_densities_against_integrals(make, density, support, peak, case):
    log_p, p = density(*case), make(*case)
    assert reference.integral(lambda x: np.exp(log_p(x)), *support, *peak(*case)) == pytest.approx(
        1
    )
    x = np.linspace(*support, 41)[1:-1]
    expected = log_p(x)
    got = p.log_prob(tf.constant(x[:, None], tf.float32)).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-3)
    entropy = -reference.integral(lambda x: np.exp(log_p(x)) * log_p(x), *support, *peak(*case))
    np.testing.assert_allclose(p.entropy(), [entropy], atol=1e-3)


@pytest.mark.parametrize("factor", [1.05, 3.0, 0.2])
@pytest.mark.parametrize(("make", "density", "support", "peak", "case"), BOUNDED)
def test_bounded_divergences_against_integrals(make, density, support, peak, case, factor):
    first, second = case
    other = (first * 0.9, second * factor)
    if make is beta_of:
        other = (max(1.0, first * factor), max(1.0, second * 0.9))
    log_p, log_q = density(*case), density(*other)
    kl = reference.integral(
        lambda x: np.exp(log_p(x)) * (log_p(x) - log_q(x)), *support, *peak(*case)
    )
    got = make(*case).kl_divergence(make(*other))
    np.testing.assert_allclose(got, [kl], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("loc", "scale"), GAUSSIANS)
def test_the_entropy_of_a_squashed_gaussian_against_cells(loc, scale):
    p = TanhGaussian()(tf.constant([[loc]]), tf.constant([[scale]]))
    expected = reference.squashed_normal_entropy(loc, scale)
    np.testing.assert_allclose(p.entropy(), [expected], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("loc", "scale"), GAUSSIANS)
def test_the_entropy_of_a_squashed_gaussian_has_the_gradient_of_its_integral(loc, scale):
    loc, scale = tf.constant([[loc]]), tf.constant([[scale]])
    with tf.GradientTape() as tape:
        tape.watch([loc, scale])
        entropy = TanhGaussian()(loc, scale).entropy()
    gradient = [g.numpy().item() for g in tape.gradient(entropy, [loc, scale])]
    at, step = (loc.numpy().item(), scale.numpy().item()), 1e-3 * scale.numpy().item()
    for i in range(2):
        lower, upper = ([x + s * step * (i == k) for k, x in enumerate(at)] for s in (-1, 1))
        slope = reference.squashed_normal_entropy(*upper) - reference.squashed_normal_entropy(
            *lower
        )
        np.testing.assert_allclose(gradient[i], slope / (2 * step), rtol=1e-3, atol=2e-3)


def test_unsquashed_elements_keep_the_gaussian_entropy():
    loc, scale = tf.constant([[0.3, 0.3, 2.0]]), tf.constant([[0.5, 0.5, 2.0]])
    entropy = TanhGaussian((True, False, False))(loc, scale).entropy().numpy()
    of_gaussian = sum(np.log(s) + 0.5 * np.log(2 * np.pi * np.e) for s in (0.5, 2.0))
    expected = reference.squashed_normal_entropy(0.3, 0.5) + of_gaussian
    np.testing.assert_allclose(entropy, [expected], atol=1e-5)


def test_the_divergence_of_squashed_gaussians_is_the_gaussians():
    p, q = example("tanh_gaussian", seed=0), example("tanh_gaussian", seed=1)
    a, b = example("gaussian", seed=0), example("gaussian", seed=1)
    np.testing.assert_allclose(p.kl_divergence(q), a.kl_divergence(b), rtol=1e-6)


def test_a_squashed_gaussian_can_be_copied_sliced_and_returned_from_a_function():
    p = example("tanh_gaussian")
    returned = tf.function(lambda: example("tanh_gaussian"))()
    for other in (p.copy(), returned):
        np.testing.assert_allclose(other.entropy(), p.entropy(), rtol=1e-6)
    np.testing.assert_allclose(p[1:3].entropy(), p.entropy()[1:3], rtol=1e-6)


def test_a_beta_never_leaves_the_open_interval():
    for raw in ([-50.0, -50.0], [50.0, -50.0], [1e4, -50.0], [-50.0, 1e4]):
        p = UnimodalBeta()(*(tf.fill([5000, 1], x) for x in raw))
        for x in (p.sample(seed=SEED).numpy(), p.mode().numpy()):
            assert (x > 0).all() and (x < 1).all()
            assert np.isfinite(p.log_prob(x)).all()


def test_golden_beta_mode():
    # softplus(log(e - 1)) = 1, softplus(log(e^3 - 1)) = 3: Beta(2, 4), (2 - 1) / (6 - 2)
    raw = [tf.constant([[np.log(np.expm1(x))]], tf.float32) for x in (1.0, 3.0)]
    np.testing.assert_allclose(UnimodalBeta()(*raw).mode(), [[0.25]], rtol=1e-5)
    uniform = UnimodalBeta()(tf.constant([[-90.0]]), tf.constant([[-90.0]]))
    np.testing.assert_allclose(uniform.mode(), [[0.5]], rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 0.3, 1.0, 10.0, 1e3])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_truncated_samples_have_the_cumulative_distribution(scale, jit_compile):
    loc, count = 0.6, 5000
    raw = tf.fill([count, 1], np.float32(np.arctanh(loc)))
    sample = tf.function(
        lambda: TruncatedGaussian()(raw, tf.fill([count, 1], scale)).sample(seed=SEED),
        jit_compile=jit_compile,
    )
    x = np.sort(sample().numpy()[:, 0].astype(np.float64))
    assert x[0] >= -1 and x[-1] <= 1
    low, at, high = (reference.erf((y - loc) / scale / 2**0.5) for y in (-1.0, x, 1.0))
    distance = np.abs((at - low) / (high - low) - (np.arange(count) + 0.5) / count).max()
    # Kolmogorov-Smirnov: sqrt(n) times the distance exceeds 1.95 once in 1000.
    assert np.sqrt(count) * distance < 1.95


def test_the_full_covariance_starts_at_the_identity_and_fills_rows():
    p = FullGaussian()(tf.zeros([1, 3]), tf.zeros([1, 6]))
    np.testing.assert_allclose(p.covariance()[0], np.eye(3), atol=1e-6)
    raw = tf.constant([[0.0, 2.0, 0.0, 3.0, 4.0, 0.0]])
    tril = np.array([[1, 0, 0], [2, 1, 0], [3, 4, 1]], np.float64)
    p = FullGaussian()(tf.zeros([1, 3]), raw)
    np.testing.assert_allclose(p.covariance()[0], tril @ tril.T, rtol=1e-5)


def test_golden_gsde():
    # two features, one action: variance .3^2 + .4^2 + 1e-6, the mean as given
    p = StateDependentExploration()(tf.constant([[2.0]]), tf.constant([[[0.3], [0.4]]]))
    np.testing.assert_allclose(p.stddev(), [[np.sqrt(0.25 + 1e-6)]], rtol=1e-6)
    np.testing.assert_allclose(p.mean(), [[2.0]])
    raw = noise_of(StateDependentExploration()).from_noise(
        {"loc": tf.constant([[2.0]]), "directions": tf.constant([[[0.3], [0.4]]])},
        tf.constant([[[1.0], [-2.0]]]),
    )
    np.testing.assert_allclose(raw, [[2.0 + 0.3 - 0.8]], rtol=1e-6)


# Discrete and joint families against their parts.


def parts_of(logits, sizes):
    return [tfd.Categorical(part) for part in tf.split(logits, sizes, axis=-1)]


@pytest.mark.parametrize("sizes", [(2, 5, 3), (4, 4), (1, 6), (7,)])
def test_a_multi_categorical_is_the_product_of_its_categoricals(sizes):
    rng = np.random.default_rng(0)
    a, b = (tf.constant(rng.normal(size=(6, sum(sizes))), tf.float32) for _ in range(2))
    family = MultiCategorical(sizes)

    def compute(p, q, raw):
        return [p.log_prob(raw), p.entropy(), p.kl_divergence(q)]

    raw = family(a).sample(seed=SEED)
    assert raw.dtype == tf.int32 and (raw.numpy() < sizes).all()
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([a, b])
        got = compute(family(a), family(b), raw)
        pairs = zip(parts_of(a, sizes), parts_of(b, sizes), tf.unstack(raw, axis=-1), strict=True)
        expected = [tf.add_n(x) for x in zip(*[compute(*pair) for pair in pairs], strict=True)]
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
        for z in (a, b):
            options = {"unconnected_gradients": "zero"}
            u, v = (tape.gradient(w, z, **options).numpy() for w in (x, y))
            np.testing.assert_allclose(u, v, rtol=1e-4, atol=1e-6)
    mode = np.stack([part.mode() for part in parts_of(a, sizes)], axis=-1)
    np.testing.assert_array_equal(family(a).mode(), mode)


def test_padding_has_no_probability_even_where_every_category_is_masked():
    logits = tf.constant([[ops.MASKED_LOGIT, ops.MASKED_LOGIT, 0.0, ops.MASKED_LOGIT, 1.0]])
    p = MultiCategorical((2, 3))(logits)
    probabilities = p.distribution.probs_parameter().numpy()[0]
    np.testing.assert_allclose(probabilities[0], [0.5, 0.5, 0.0])
    assert probabilities[0, 2] == 0.0 and probabilities[1, 1] == 0.0
    assert np.isfinite(p.entropy()).all() and np.isfinite(p.kl_divergence(p)).all()


def test_a_masked_category_is_never_drawn_from_noise():
    logits = tf.repeat(
        tf.constant([[0.0, ops.MASKED_LOGIT, -20.0, ops.MASKED_LOGIT, 1.0]]), 2000, axis=0
    )
    noise = noise_of(MultiCategorical((2, 3)))
    drawn = noise.draw(np.random.default_rng(0), 1, {"logits": logits})[0]
    raw = noise.from_noise({"logits": logits}, drawn).numpy()
    assert (raw[:, 0] == 0).all() and (raw[:, 1] != 1).all()


def test_a_multi_bernoulli_is_the_product_of_its_bernoullis():
    logits = tf.constant([[-1.0, 0.0, 2.0]])
    p = MultiBernoulli()(logits)
    probability = 1 / (1 + np.exp([1.0, 0.0, -2.0]))
    raw = tf.constant([[1, 0, 1]])
    expected = np.log(probability[0]) + np.log(1 - probability[1]) + np.log(probability[2])
    np.testing.assert_allclose(p.log_prob(raw), [expected], rtol=1e-5)
    entropy = -(probability * np.log(probability) + (1 - probability) * np.log(1 - probability))
    np.testing.assert_allclose(p.entropy(), [entropy.sum()], rtol=1e-5)
    assert p.sample(seed=SEED).dtype == tf.int32


def test_a_joint_is_the_sum_of_its_parts():
    family, shapes = FAMILIES["joint"]
    parameters, other = (parameters_of(shapes, 5, seed) for seed in (0, 1))
    p, q = family(**parameters), family(**other)
    raw = p.sample(seed=SEED)
    assert {key: x.dtype for key, x in raw.items()} == {
        "arm/0": tf.int32,
        "arm/1": tf.float32,
        "gripper": tf.int32,
        "wheel": tf.int32,
    }
    parts = {k: part(**parameters[k]) for k, part in family.families.items()}
    others = {k: part(**other[k]) for k, part in family.families.items()}
    log_prob = sum(parts[k].log_prob(raw[k]).numpy() for k in parts)
    np.testing.assert_allclose(p.log_prob(raw), log_prob, rtol=1e-5)
    np.testing.assert_allclose(p.log_prob(dict(reversed(raw.items()))), log_prob, rtol=1e-5)
    entropy = sum(part.entropy().numpy() for part in parts.values())
    np.testing.assert_allclose(p.entropy(), entropy, rtol=1e-5)
    kl = sum(parts[k].kl_divergence(others[k]).numpy() for k in parts)
    np.testing.assert_allclose(p.kl_divergence(q), kl, rtol=1e-5)
    for key, mode in p.mode().items():
        np.testing.assert_array_equal(mode, parts[key].mode())


def test_the_order_of_a_joints_parts_does_not_change_the_draws():
    family, shapes = FAMILIES["joint"]
    parameters = parameters_of(shapes, 5, 0)
    both = (family, Joint(dict(reversed(family.families.items()))))
    samples = [f(**parameters).sample(seed=SEED) for f in both]
    noise = [noise_of(f).draw(np.random.default_rng(0), 2, parameters) for f in both]
    for a, b in (samples, noise):
        for key in shapes:
            np.testing.assert_array_equal(a[key], b[key])


def test_invalid_arguments_raise_with_their_value():
    with pytest.raises(ValueError, match=r"sizes must .*Received: sizes=\(2, 0\)"):
        MultiCategorical((2, 0))
    with pytest.raises(ValueError, match=r"sizes must .*Received: sizes=\(\)"):
        MultiCategorical(())
    with pytest.raises(ValueError, match=r"period must .*Received: period=0"):
        StateDependentExploration(0)


@pytest.mark.parametrize(
    ("p", "q"),
    [
        ((0.0, 1.0), (0.3, 0.8)),
        ((0.5, 0.2), (0.3, 0.3)),
        ((-0.9, 2.0), (0.3, 1.0)),
        ((0.95, 0.05), (0.9, 0.07)),  # most of the mass is cut off
    ],
)
def test_the_gradient_of_a_truncated_kl_is_that_of_the_integral(p, q):
    """With respect to all four parameters; the limits of the integral move with the first two."""

    def exact(loc_p, scale_p, loc_q, scale_q):
        log_p = reference.truncated_gaussian(loc_p, scale_p)
        log_q = reference.truncated_gaussian(loc_q, scale_q)
        integrand = lambda x: np.exp(log_p(x)) * (log_p(x) - log_q(x))  # noqa: E731
        return reference.integral(integrand, -1.0, 1.0, loc_p, scale_p)

    numbers = [*p, *q]
    variables = [tf.Variable(number, dtype=tf.float32) for number in numbers]
    with tf.GradientTape() as tape:
        one = CentredTruncatedNormal(*variables[:2], -1.0, 1.0)
        kl = one.kl_divergence(CentredTruncatedNormal(*variables[2:], -1.0, 1.0))
    gradients = [float(g) for g in tape.gradient(kl, variables)]
    expected = []
    for i, number in enumerate(numbers):
        step = 1e-4 * abs(number) + 1e-6
        up, down = list(numbers), list(numbers)
        up[i], down[i] = number + step, number - step
        expected.append((exact(*up) - exact(*down)) / (2 * step))
    np.testing.assert_allclose(gradients, expected, rtol=2e-3, atol=1e-4)
