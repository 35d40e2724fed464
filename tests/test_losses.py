"""Losses against the papers' formulas, golden values and each other's gradients."""

import inspect

import numpy as np
import pytest
import reference
import tensorflow as tf
import tensorflow_probability as tfp

from ppo_tf.learning import diagnostics
from ppo_tf.learning.losses import (
    SPO,
    Clip,
    EntropyBonus,
    KLPenalty,
    PolicyGradient,
    Sum,
    Surrogate,
)
from ppo_tf.learning.schedules import schedule
from ppo_tf.learning.value_losses import ClippedError, Huber, SquaredError

tfd = tfp.distributions

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
SAMPLES = 40


class Case:
    """The arguments of a loss, and the float64 quantities that the oracles need."""

    def __init__(self, kind):
        rng = np.random.default_rng(0)
        self.advantages = rng.normal(size=SAMPLES).astype(np.float32)
        if kind == "categorical":
            old, new = rng.normal(size=(2, SAMPLES, 3)).astype(np.float32)
            self.actions = rng.integers(3, size=SAMPLES)
            self.old_dist, self.new_dist = tfd.Categorical(old), tfd.Categorical(new)
            rows = np.arange(SAMPLES)
            self.old_log_prob = np.log(reference.softmax(old)[rows, self.actions])
            self.new_log_prob = np.log(reference.softmax(new)[rows, self.actions])
            self.kl = reference.categorical_kl(old, new)
            self.entropy = reference.categorical_entropy(new)
        else:
            old, new = (0.3 * rng.normal(size=(2, SAMPLES, 3))).astype(np.float32)
            old_scale, new_scale = rng.uniform(0.7, 1.3, (2, SAMPLES, 3)).astype(np.float32)
            self.actions = old + old_scale * rng.normal(size=(SAMPLES, 3)).astype(np.float32)
            self.old_dist = tfd.MultivariateNormalDiag(old, old_scale)
            self.new_dist = tfd.MultivariateNormalDiag(new, new_scale)
            self.old_log_prob = reference.gaussian_log_prob(self.actions, old, old_scale)
            self.new_log_prob = reference.gaussian_log_prob(self.actions, new, new_scale)
            self.kl = reference.gaussian_kl(old, old_scale, new, new_scale)
            self.entropy = reference.gaussian_entropy(new_scale)

    def evaluate(self, loss, **more):
        batch = {
            "new_dist": self.new_dist,
            "old_dist": self.old_dist,
            "actions": tf.constant(self.actions),
            "advantages": tf.constant(self.advantages),
            **more,
        }
        names = inspect.signature(loss).parameters
        return loss(**{name: x for name, x in batch.items() if name in names})


@pytest.fixture(params=["categorical", "gaussian"], scope="module")
def case(request):
    return Case(request.param)


def with_ratio(ratio, advantage, loss):
    """Evaluates a loss on a sample whose action is `ratio` times as likely under the new policy."""
    old = tfd.Categorical(probs=[[0.4, 0.6]])
    new = tfd.Categorical(probs=[[0.4 * ratio, 1 - 0.4 * ratio]])
    values, metrics = loss(
        new_dist=new,
        old_dist=old,
        actions=tf.constant([0]),
        advantages=tf.constant([advantage], tf.float32),
    )
    assert values.shape == (1,)
    return float(values[0]), metrics


def mixture(samples=4):
    """A distribution with a density and samples, but no exact entropy or KL in TFP."""
    return tfd.MixtureSameFamily(
        tfd.Categorical(logits=tf.zeros([samples, 2])),
        tfd.MultivariateNormalDiag(loc=tf.zeros([samples, 2, 3])),
    )


def test_policy_gradient_equals_the_paper(case):
    loss, metrics = case.evaluate(PolicyGradient())
    expected = reference.policy_gradient_loss(case.new_log_prob, case.advantages)
    np.testing.assert_allclose(loss, expected, **TOLERANCE)
    assert metrics == {}


@pytest.mark.parametrize(("epsilon", "high"), [(0.2, None), (0.05, 0.4)])
def test_clip_equals_the_paper(case, epsilon, high):
    loss, metrics = case.evaluate(Clip(epsilon, epsilon_high=high))
    expected = reference.clip_loss(
        case.new_log_prob,
        case.old_log_prob,
        case.advantages,
        epsilon=epsilon,
        epsilon_high=high,
    )
    np.testing.assert_allclose(loss, expected, **TOLERANCE)
    ratio = np.exp(case.new_log_prob - case.old_log_prob)
    outside = (ratio < 1 - epsilon) | (ratio > 1 + (high or epsilon))
    assert metrics.keys() == {"clip_fraction"}
    np.testing.assert_array_equal(metrics["clip_fraction"], outside)
    assert 0 < outside.mean() < 1  # the case must exercise both


@pytest.mark.parametrize("coefficient", [0.0, 0.7])
def test_kl_penalty_equals_the_paper(case, coefficient):
    loss, metrics = case.evaluate(KLPenalty(coefficient))
    expected = reference.kl_penalty_loss(
        case.new_log_prob, case.old_log_prob, case.advantages, case.kl, coefficient=coefficient
    )
    np.testing.assert_allclose(loss, expected, **TOLERANCE)
    assert metrics.keys() == {"kl_coefficient"}
    np.testing.assert_allclose(metrics["kl_coefficient"], coefficient)


def test_entropy_bonus_equals_the_formula(case):
    loss, metrics = case.evaluate(EntropyBonus(0.3))
    np.testing.assert_allclose(loss, -0.3 * case.entropy, **TOLERANCE)
    assert metrics == {}


def categorical_policy():
    parameter = tf.Variable(np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32))
    return parameter, tfd.Categorical, tf.constant([0, 1, 2, 0, 1, 2])


def gaussian_policy():
    rng = np.random.default_rng(2)
    parameter = tf.Variable(rng.normal(size=(6, 3)).astype(np.float32))
    actions = tf.constant(rng.normal(size=(6, 3)).astype(np.float32))
    return parameter, lambda loc: tfd.MultivariateNormalDiag(loc, tf.ones([6, 3])), actions


@pytest.mark.parametrize("policy", [categorical_policy, gaussian_policy])
@pytest.mark.parametrize("loss", [Clip(0.2), KLPenalty(1.0)], ids=["Clip", "KLPenalty"])
def test_surrogates_have_the_policy_gradient_at_ratio_one(policy, loss):
    parameter, family, actions = policy()
    advantages = tf.constant([1.0, -2.0, 0.5, -0.1, 3.0, -1.0])
    gradients = []
    for each in (loss, PolicyGradient()):
        with tf.GradientTape() as tape:
            values, _ = each(
                new_dist=family(parameter),
                old_dist=family(tf.constant(parameter)),
                actions=actions,
                advantages=advantages,
            )
        gradients.append(tape.gradient(values, parameter).numpy())
    assert np.abs(gradients[1]).max() > 0.1
    np.testing.assert_allclose(*gradients, **TOLERANCE)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "clipped"),
    [
        # A good action: the ratio counts up to 1 + .5 = 1.5, and in full below.
        (2.0, 2.0, -1.5 * 2, 1),
        (1.25, 2.0, -1.25 * 2, 0),
        (0.5, 2.0, -0.5 * 2, 1),
        # A bad action: the ratio counts down to 1 - .1 = 0.9, and in full above.
        (0.5, -2.0, 0.9 * 2, 1),
        (0.95, -2.0, 0.95 * 2, 0),
        (2.0, -2.0, 2.0 * 2, 1),
        (2.0, 0.0, 0.0, 1),
    ],
)
def test_golden_clip_with_different_bounds(ratio, advantage, expected, clipped):
    loss, metrics = with_ratio(ratio, advantage, Clip(epsilon=0.1, epsilon_high=0.5))
    np.testing.assert_allclose(loss, expected, **TOLERANCE)
    assert metrics["clip_fraction"].numpy().tolist() == [clipped]


@pytest.mark.parametrize(
    ("ratio", "advantage", "flat"),
    [(1.5, 1.0, True), (0.5, 1.0, False), (0.5, -1.0, True), (1.5, -1.0, False)],
)
def test_clip_stops_the_gradient_only_past_the_helpful_bound(ratio, advantage, flat):
    logits = tf.Variable(np.log([[0.4 * ratio, 1 - 0.4 * ratio]]).astype(np.float32))
    with tf.GradientTape() as tape:
        loss, _ = Clip(0.2)(
            new_dist=tfd.Categorical(logits),
            old_dist=tfd.Categorical(probs=[[0.4, 0.6]]),
            actions=tf.constant([0]),
            advantages=tf.constant([advantage]),
        )
    gradient = np.abs(tape.gradient(loss, logits).numpy()).max()
    assert gradient == 0 if flat else gradient > 0.01


def test_clip_of_a_ratio_that_overflows_has_a_zero_gradient():
    loc = tf.Variable([[0.0]])
    with tf.GradientTape() as tape:
        loss, _ = Clip(0.2)(
            new_dist=tfd.MultivariateNormalDiag(loc, [[1.0]]),
            old_dist=tfd.MultivariateNormalDiag([[30.0]], [[1.0]]),
            actions=tf.constant([[0.0]]),  # the log-ratio is 30^2 / 2 = 450, exp(450) infinite
            advantages=tf.constant([1.0]),
        )
    np.testing.assert_allclose(loss, [-1.2], **TOLERANCE)
    assert tape.gradient(loss, loc).numpy().tolist() == [[0]]


def test_golden_kl_penalty_is_old_relative_to_new():
    loss, _ = with_ratio(0.5, 2.0, KLPenalty(3.0))
    # r A = 1. KL(old || new) = .4 log(.4 / .2) + .6 log(.6 / .8) = .277259 - .172609 = .104650;
    # KL(new || old) = .2 log(.2 / .4) + .8 log(.8 / .6) = -.138629 + .230146 = .091516.
    np.testing.assert_allclose(loss, 3 * 0.104650 - 1, rtol=1e-5)


def test_masked_categories_give_finite_losses_and_gradients():
    minus_infinity = float("-inf")
    old = tf.constant([[0.0, 1.0, minus_infinity]])
    new = tf.Variable([[1.0, 0.0, minus_infinity]])
    with tf.GradientTape() as tape:
        loss, _ = Sum([KLPenalty(1.0), EntropyBonus(1.0)])(
            new_dist=tfd.Categorical(new),
            old_dist=tfd.Categorical(old),
            actions=tf.constant([0]),
            advantages=tf.constant([1.0]),
        )
    # p = old = [1, e] / (1 + e), q = new = [e, 1] / (1 + e): KL = sum p log(p / q) = (e - 1) /
    # (e + 1), ratio = e, entropy = log(1 + e) - e / (1 + e)
    e = np.e
    expected = (e - 1) / (e + 1) - e - (np.log(1 + e) - e / (1 + e))
    np.testing.assert_allclose(loss, [expected], **TOLERANCE)
    gradient = tape.gradient(loss, new).numpy()
    assert np.isfinite(gradient).all()
    assert gradient[0, 2] == 0


@pytest.mark.parametrize(
    ("kl", "factor"),
    [
        (0.0, 0.5),
        (1.99, 0.5),  # below target / 1.5 = 2
        (2.0, 1.0),  # at the bound: the paper's "<" is strict
        (3.0, 1.0),
        (4.5, 1.0),  # at 1.5 target = 4.5: ">" is strict
        (4.51, 2.0),
        (100.0, 2.0),
    ],
)
def test_kl_penalty_adapts_by_the_papers_rule(kl, factor):
    loss = KLPenalty(0.8, target=3.0)
    loss.after_update(tf.constant(kl))
    np.testing.assert_allclose(loss.coefficient.numpy(), 0.8 * factor, rtol=1e-6)


def test_kl_penalty_adapts_update_by_update_and_uses_the_new_coefficient():
    loss = KLPenalty(1.0, target=0.01)
    for kl, expected in [(1.0, 2.0), (1.0, 4.0), (0.01, 4.0), (0.0, 2.0)]:
        loss.after_update(tf.constant(kl))
        assert float(loss.coefficient) == expected
    _, metrics = with_ratio(1.0, 1.0, loss)
    assert float(metrics["kl_coefficient"]) == 2.0


def test_kl_penalty_adapts_inside_a_compiled_function():
    loss = KLPenalty(1.0, target=0.01)
    adapt = tf.function(loss.after_update, jit_compile=True)
    adapt(tf.constant(1.0))
    adapt(tf.constant(1.0))
    assert float(loss.coefficient) == 4.0


def test_kl_penalty_recovers_from_any_number_of_updates():
    loss = KLPenalty(1.0, target=0.01)
    for _ in range(300):  # 2^-300 is 0 in float32
        loss.after_update(tf.constant(0.0))
    assert float(loss.coefficient) > 0
    for _ in range(600):
        loss.after_update(tf.constant(1.0))
    assert np.isfinite(float(loss.coefficient))


def test_kl_penalty_without_target_stays_fixed():
    loss = KLPenalty(0.8)
    for kl in (0.0, 1e-3, 1.0, 100.0):
        loss.after_update(tf.constant(kl))
    assert float(loss.coefficient) == np.float32(0.8)


class Recorder:
    """A loss with a golden value and one metric, which records its calls."""

    def __init__(self, value, metric):
        self.value, self.metric, self.kls = value, metric, []

    def __call__(self, *, new_dist, old_dist, actions, advantages):
        return self.value * advantages, {self.metric: self.value}

    def after_update(self, kl):
        self.kls.append(kl)


def evaluate_sum(losses):
    return Sum(losses)(
        new_dist=None, old_dist=None, actions=None, advantages=tf.constant([1.0, 2.0])
    )


def test_sum_adds_losses_and_merges_metrics():
    loss, metrics = evaluate_sum([Recorder(2.0, "two"), Recorder(3.0, "three")])
    assert loss.numpy().tolist() == [5, 10]
    assert metrics == {"two": 2.0, "three": 3.0}


def test_sum_equals_its_parts(case):
    loss, metrics = case.evaluate(Sum([Clip(0.2), KLPenalty(0.5), EntropyBonus(0.1)]))
    parts = [case.evaluate(each)[0] for each in (Clip(0.2), KLPenalty(0.5), EntropyBonus(0.1))]
    np.testing.assert_allclose(loss, sum(part.numpy() for part in parts), **TOLERANCE)
    assert metrics.keys() == {"clip_fraction", "kl_coefficient"}


def test_sum_forwards_after_update_to_the_losses_that_adapt():
    recorder, penalty = Recorder(1.0, "one"), KLPenalty(1.0, target=0.01)
    Sum([Clip(), recorder, Sum([penalty])]).after_update(0.5)
    assert recorder.kls == [0.5]
    assert float(penalty.coefficient) == 2.0


def test_sum_owns_the_variables_of_its_losses():
    penalty = KLPenalty(1.0, target=0.01)
    (variable,) = Sum([Clip(), penalty]).variables
    assert variable is penalty.coefficient


def test_sum_of_metrics_with_the_same_name_raises():
    with pytest.raises(ValueError, match=r"metrics of one name.*Received: \['same'\]"):
        evaluate_sum([Recorder(1.0, "same"), Recorder(2.0, "same")])


def test_sum_of_nothing_raises():
    with pytest.raises(ValueError, match=r"losses must.*Received: losses=\[\]"):
        Sum([])


@pytest.mark.parametrize("loss", [KLPenalty(1.0), EntropyBonus(0.1)], ids=["KL", "entropy"])
def test_a_distribution_without_the_exact_quantity_raises(loss):
    with pytest.raises(ValueError, match=r"exact (KL|entropy).*Received: .*MixtureSameFamily"):
        loss(
            new_dist=mixture(),
            old_dist=mixture(),
            actions=tf.zeros([4, 3]),
            advantages=tf.ones([4]),
        )


@pytest.mark.parametrize("loss", [PolicyGradient(), Clip()], ids=["PG", "Clip"])
def test_losses_of_the_ratio_alone_accept_any_distribution(loss):
    values, _ = loss(
        new_dist=mixture(),
        old_dist=mixture(),
        actions=tf.zeros([4, 3]),
        advantages=tf.ones([4]),
    )
    assert np.isfinite(values).all()
    assert values.shape == (4,)


@pytest.mark.parametrize("width", [1, 3, 4])  # 1 and 4 would broadcast
@pytest.mark.parametrize(
    "loss", [PolicyGradient(), Clip(), KLPenalty()], ids=["PG", "Clip", "KLPenalty"]
)
def test_a_log_probability_per_element_raises(loss, width):
    per_element = tfd.Normal(tf.zeros([4, width]), 1.0)
    with pytest.raises(ValueError, match=rf"one log-probability.*\(4, {width}\).*\(4,\)"):
        loss(
            new_dist=per_element,
            old_dist=per_element,
            actions=tf.zeros([4, width]),
            advantages=tf.ones([4]),
        )


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (Clip, "epsilon", 0.0),
        (Clip, "epsilon", 1.0),
        (Clip, "epsilon", -0.2),
        (Clip, "epsilon_high", 0.0),
        (Clip, "epsilon_high", float("inf")),
        (KLPenalty, "coefficient", -1.0),
        (KLPenalty, "coefficient", float("nan")),
        (KLPenalty, "target", 0.0),
        (KLPenalty, "target", -0.01),
        (EntropyBonus, "coefficient", -0.1),
        (ClippedError, "epsilon", 0.0),
        (Huber, "delta", -1.0),
    ],
)
def test_bad_hyperparameters_raise_with_name_and_value(make, name, value):
    with pytest.raises(ValueError, match=rf"{name} must .*Received: {name}={value}"):
        make(**{name: value})


def test_an_adaptive_kl_penalty_cannot_start_at_zero():
    with pytest.raises(ValueError, match=r"coefficient must be positive.*coefficient=0"):
        KLPenalty(0.0, target=0.01)


def value_loss(loss, values, old_values, targets):
    return loss(
        values=tf.constant(values), old_values=tf.constant(old_values), targets=tf.constant(targets)
    ).numpy()


def test_golden_squared_error():
    result = value_loss(SquaredError(), [1.0, -2.0, 3.0], [9.0, 9.0, 9.0], [4.0, -2.0, 1.0])
    assert result.tolist() == [9, 0, 4]


def test_golden_huber():
    # e = .5: .25; e = -1: 1; e = 3: 2 * 1 * 3 - 1 = 5; e = -3: 5
    result = value_loss(Huber(1.0), [0.5, -1.0, 3.0, -3.0], [9.0] * 4, [0.0] * 4)
    assert result.tolist() == [0.25, 1, 5, 5]


def test_huber_with_a_large_delta_is_the_squared_error():
    values, old_values, targets = np.random.default_rng(4).normal(size=(3, 50)).astype(np.float32)
    np.testing.assert_array_equal(
        value_loss(Huber(1e3), values, old_values, targets),
        value_loss(SquaredError(), values, old_values, targets),
    )


def test_golden_clipped_error():
    # epsilon = .5, V_old = 1
    # V = 1.25, target 2: inside, (-.75)^2 = .5625
    # V = 2, target 3: clipped to 1.5, max(1, 2.25) = 2.25
    # V = 0, target -1: clipped to .5, max(1, 2.25) = 2.25
    # V = 3, target 1: clipped to 1.5, max(4, .25) = 4
    result = value_loss(ClippedError(0.5), [1.25, 2.0, 0.0, 3.0], [1.0] * 4, [2.0, 3.0, -1.0, 1.0])
    assert result.tolist() == [0.5625, 2.25, 2.25, 4]


def test_clipped_error_of_unchanged_values_is_the_squared_error():
    values, targets = np.random.default_rng(5).normal(size=(2, 50)).astype(np.float32)
    np.testing.assert_array_equal(
        value_loss(ClippedError(0.2), values, values, targets),
        value_loss(SquaredError(), values, values, targets),
    )


# ---- SPO, the plain surrogate, estimated penalties, importance weights, schedules


def test_spo_equals_the_formula(case):
    ratio = np.exp(case.new_log_prob - case.old_log_prob)
    moved, a = ratio - 1.0, case.advantages.astype(np.float64)
    loss, metrics = case.evaluate(SPO(0.3))
    expected = np.abs(a) * moved**2 / (2 * 0.3) - ratio * a
    np.testing.assert_allclose(loss, expected, **TOLERANCE)
    np.testing.assert_array_equal(metrics["clip_fraction"], np.abs(moved) > 0.3)


@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_spo_is_least_where_the_ratio_has_moved_by_epsilon(advantage):
    best = 1.0 + 0.2 * np.sign(advantage)
    values = [with_ratio(float(best + x), advantage, SPO(0.2))[0] for x in (-0.05, 0.0, 0.05)]
    assert values[1] < min(values[0], values[2])


def test_the_surrogate_is_a_penalty_of_nothing(case):
    surrogate, _ = case.evaluate(Surrogate())
    np.testing.assert_array_equal(surrogate, case.evaluate(KLPenalty(0.0))[0])


@pytest.mark.parametrize("estimate", ["k1", "k2", "k3"])
def test_a_penalty_can_be_estimated(case, estimate):
    loss, metrics = case.evaluate(KLPenalty(2.0, estimate=estimate))
    actions = tf.constant(case.actions)
    kl = diagnostics.kl_estimates(case.old_dist, case.new_dist, actions)[f"kl_{estimate}"]
    surrogate, _ = case.evaluate(Surrogate())
    np.testing.assert_allclose(loss, surrogate + 2.0 * kl, **TOLERANCE)
    assert float(metrics["kl_coefficient"]) == 2.0


def test_clip_and_penalty_go_together(case):
    both, metrics = case.evaluate(KLPenalty(2.0, surrogate=Clip(0.1)))
    clip, clip_metrics = case.evaluate(Clip(0.1))
    np.testing.assert_allclose(both, clip + 2.0 * case.kl, **TOLERANCE)
    np.testing.assert_array_equal(metrics["clip_fraction"], clip_metrics["clip_fraction"])


def test_an_unknown_centre_of_the_clip_is_refused():
    with pytest.raises(ValueError, match=r"around must be recent or behaviour.*around='old'"):
        Clip(0.2, around="old")


def test_an_unknown_estimate_is_refused():
    with pytest.raises(ValueError, match=r"exact, k1, k2, k3\. Received: estimate='k4'"):
        KLPenalty(1.0, estimate="k4")


WEIGHED = [Surrogate(), Clip(0.2), SPO(0.2), PolicyGradient(), KLPenalty(1.0, estimate="k3")]


@pytest.mark.parametrize("loss", WEIGHED, ids=lambda loss: type(loss).__name__)
def test_importance_weights_of_one_change_nothing(case, loss):
    ones = tf.ones(SAMPLES)
    weighed, _ = case.evaluate(loss, importance_weights=ones)
    np.testing.assert_allclose(weighed, case.evaluate(loss)[0], **TOLERANCE)


def test_weighed_losses_equal_the_formulas(case):
    w = np.random.default_rng(1).lognormal(size=SAMPLES)
    weights = tf.constant(w, tf.float32)
    a = case.advantages.astype(np.float64)
    wr = w * np.exp(case.new_log_prob - case.old_log_prob)
    expected = {
        Surrogate(): -wr * a,
        PolicyGradient(): -w * case.new_log_prob * a,
        # GePPO, eq. 7: the interval lies around w, not around 1.
        Clip(0.2, 0.3): -np.minimum(wr * a, np.clip(wr, w - 0.2, w + 0.3) * a),
        # PPO with old data: around 1.
        Clip(0.2, around="behaviour"): -np.minimum(wr * a, np.clip(wr, 0.8, 1.2) * a),
        SPO(0.2): np.abs(a) * (wr - w) ** 2 / 0.4 - wr * a,
    }
    for loss, wanted in expected.items():
        actual, _ = case.evaluate(loss, importance_weights=weights)
        np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-4, err_msg=str(loss))


SIZES = {"total_steps": 80, "horizon": 4, "num_envs": 2, "epochs": 1, "minibatch_size": 8}


@pytest.mark.parametrize(
    ("make", "name"), [(Clip, "epsilon"), (SPO, "epsilon"), (EntropyBonus, "coefficient")]
)
def test_a_schedule_gives_the_value_of_its_step(case, make, name):
    falling = make(**{name: schedule("linear", 0.2, **SIZES)})  # to 0 in 10 steps
    steps = tf.constant(5, tf.int64)
    now, _ = case.evaluate(falling, gradient_steps=steps)
    np.testing.assert_allclose(now, case.evaluate(make(**{name: 0.1}))[0], **TOLERANCE)
    with pytest.raises(ValueError, match="A schedule needs gradient_steps"):
        case.evaluate(falling)


def test_schedules_begin_at_their_value_and_end_at_zero():
    for name in ("linear", "cosine"):
        falling = schedule(name, 0.2, **SIZES)
        np.testing.assert_allclose(
            [falling(0), falling(5), falling(10)], [0.2, 0.1, 0.0], atol=1e-7
        )
    assert schedule("constant", 0.2, **SIZES) == 0.2
    with pytest.raises(ValueError, match=r"constant, linear, cosine\. Received: name="):
        schedule("square", 0.2, **SIZES)
