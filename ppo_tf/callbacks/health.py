"""`HealthAdvice`: advice in plain words when the logs of a run look wrong.

Each rule is a function of the logs seen so far; RULES lists them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np

from ppo_tf.actions.maps import (
    BinAction,
    ClipAction,
    DiscreteAction,
    JointAction,
    TanhAction,
    UnitAction,
)
from ppo_tf.callbacks.logs import Logs, is_missing
from ppo_tf.support.schema import TEXT, Named, Rule, check, optional
from ppo_tf.support.telling import tell

# Number of iterations whose median counts: a single bad update means nothing.
WINDOW = 5
# A critic that has learned anything explains more, even with Blackjack's cards (0.2) and
# FrozenLake's slips (0.15). Only the best window so far counts: once all returns are equal, nothing
# is left to explain, and a solved CartPole-v1 shows -3.
MIN_EXPLAINED_VARIANCE = 0.05
# Fraction of training after which a critic should have learned something.
CRITIC_GRACE = 0.2
# Nats per update. Healthy runs of the presets stay below 0.04; Schulman's advice is 0.01 to 0.02.
MAX_KL = 0.1
# Times the target: an adaptive coefficient keeps within 1.5, early stopping overshoots by a step.
MAX_KL_PER_TARGET = 4.0
# Fraction of samples. Healthy runs of the presets stay below 0.3; at 0.5 most gradients are 0.
MAX_CLIP_FRACTION = 0.5
# Fraction of the elements of Box actions. Good control can be at the bounds most of the time (Seyde
# et al. 2021, "Is bang-bang control all you need?"), so this counts only while the return has not
# grown. A Gaussian with the initial scale, half the range, has 0.33.
MAX_SATURATED = 0.9
# Fraction of the entropy that is left after a collapse; for a Box, of the distribution's width per
# element. Solved tasks come close (Taxi-v4: 0.01), so this counts only while the return has not
# grown.
MIN_ENTROPY_SHARE = 0.01
# The return has grown once its mean exceeds the first value by this fraction of that value's size,
# which is about the uncertainty of the mean of the first episodes.
MIN_GROWTH = 0.25


@dataclass
class Seen:
    """What the rules know about a run. Missing values of a log are ignored.

    Attributes:
        first: the first value of each log.
        recent: the last `WINDOW` values of each log.
        best_explained_variance: highest median of a window so far.
        progress: fraction of training that is done.
        expected_kl: target KL divergence per update, nats.
        box_elements: number of Box elements in the action; None: unknown.
    """

    first: dict[str, float] = field(default_factory=dict)
    recent: dict[str, list[float]] = field(default_factory=dict)
    best_explained_variance: float | None = None
    progress: float = 0.0
    expected_kl: float | None = None
    box_elements: int | None = None

    def add(self, logs: dict[str, Any]) -> None:
        """Adds the logs of an iteration."""
        for name, value in logs.items():
            if isinstance(value, int | float) and not is_missing(value):
                self.first.setdefault(name, value)
                self.recent[name] = [*self.recent.get(name, []), value][-WINDOW:]
        explained = self.median("train/explained_variance")
        if explained is not None:
            best = self.best_explained_variance
            self.best_explained_variance = explained if best is None else max(best, explained)

    def median(self, name: str) -> float | None:
        """Returns the median of a log's last values; None before there are `WINDOW` of them."""
        values = self.recent.get(name, [])
        return float(np.median(values)) if len(values) == WINDOW else None

    def has_improved(self) -> bool:
        """Whether the mean return has grown."""
        name = "rollout/episode_return"
        if name not in self.first:
            return False
        first = self.first[name]
        return self.recent[name][-1] > first + MIN_GROWTH * abs(first)


def critic_explains_nothing(seen: Seen) -> str | None:
    """After a fifth of training, the critic has never been better than a constant."""
    if "train/value_loss" not in seen.first or seen.progress < CRITIC_GRACE:
        return None  # without a critic all values are 0
    explained, best = seen.median("train/explained_variance"), seen.best_explained_variance
    if explained is None or best is None or best >= MIN_EXPLAINED_VARIANCE:
        return None
    return (
        "the critic explains none of the variance of returns "
        f"(train/explained_variance {explained:.2f}): "
        "check that observations contain what rewards depend on; "
        "try another `learning_rate`, larger `hidden_sizes` or a higher `value_coefficient`"
    )


def policy_moves_too_far(seen: Seen) -> str | None:
    """The KL divergence per update is far above its target, or above what is usual."""
    name = "train/kl" if "train/kl" in seen.first else "train/kl_k3"
    bound = MAX_KL if seen.expected_kl is None else MAX_KL_PER_TARGET * seen.expected_kl
    kl = seen.median(name)
    if kl is None or kl <= bound:
        return None
    usual = "0.04 or less is usual" if seen.expected_kl is None else f"target {seen.expected_kl:g}"
    return (
        f"updates move the policy too far ({name} {kl:.2g} nats, {usual}): "
        "try a lower `learning_rate`, fewer `epochs` or `early_stopping_kl=0.02`"
    )


def most_samples_are_clipped(seen: Seen) -> str | None:
    """Most probability ratios leave the clipping range."""
    clipped = seen.median("train/clip_fraction")
    if clipped is None or clipped <= MAX_CLIP_FRACTION:
        return None
    return (
        f"most samples are clipped and contribute no gradient (train/clip_fraction {clipped:.2f}): "
        "try a lower `learning_rate`, fewer `epochs` or a larger `minibatch_size`"
    )


def actions_stick_to_bounds(seen: Seen) -> str | None:
    """Nearly all Box actions are at their bounds, and the return has not grown."""
    saturated = seen.median("rollout/saturated_actions")
    if saturated is None or saturated <= MAX_SATURATED or seen.has_improved():
        return None
    return (
        f"nearly all actions are at their bounds (rollout/saturated_actions {saturated:.2f}) and "
        "the return has not grown: try a smaller `initial_scale`, a lower `learning_rate` or "
        "`continuous=beta`"
    )


def actions_are_never_valid(seen: Seen) -> str | None:
    """In each of the last rollouts, masks never allowed some of the actions."""
    dead = min(seen.recent.get("rollout/dead_actions", [0]))
    if dead == 0 or seen.median("rollout/dead_actions") is None:
        return None
    return (
        f"masks never allow {dead:.0f} or more of the actions (rollout/dead_actions, "
        f"{WINDOW} rollouts in a row): check that the mask is right and these actions are needed"
    )


def entropy_collapsed(seen: Seen) -> str | None:
    """The policy has become nearly deterministic, and the return has not grown.

    The entropy of a Box is differential and can be negative: with n elements, it falls by
    n log(1 / s) if the width of their distribution falls to the fraction s. A fall in the other
    parts of a composite action counts towards it. Without masks, a discrete choice has an entropy
    of at least log 2 before the first update; the first value is measured after it.
    """
    name = "train/entropy"
    entropy = seen.median(name)
    if entropy is None or seen.box_elements is None or seen.has_improved():
        return None
    first = seen.first[name]
    if seen.box_elements:
        collapsed = first - entropy > seen.box_elements * math.log(1.0 / MIN_ENTROPY_SHARE)
    else:
        free = "rollout/dead_actions" not in seen.first
        collapsed = entropy < MIN_ENTROPY_SHARE * max(first, math.log(2.0) if free else 0.0)
    if not collapsed:
        return None
    return (
        f"the policy hardly explores ({name} {entropy:.2g} nats, {first:.2g} after the first "
        "update) and "
        "the return has not grown: try a lower `learning_rate` or `entropy_coefficient=0.01`"
    )


RULES: tuple[Callable[[Seen], str | None], ...] = (
    critic_explains_nothing,
    policy_moves_too_far,
    most_samples_are_clipped,
    actions_stick_to_bounds,
    actions_are_never_valid,
    entropy_collapsed,
)


_FLOAT = Rule("a number", lambda v: type(v) in (int, float))  # a log may be infinite
_SEEN: dict[str, Any] = {
    "first": Named(TEXT, _FLOAT),
    "recent": Named(TEXT, [_FLOAT]),
    "best_explained_variance": optional(_FLOAT),
    "progress": _FLOAT,
}


class HealthAdvice(keras.callbacks.Callback):
    """Says what looks wrong with a run and what to try: a line for each of RULES, once per run.

    Names in backticks are settings declared in `ppo_tf.settings`. A resumed run does not repeat
    advice.

    Args:
        expected_kl: KL divergence per update that the learner aims at, in nats; None: no target.
        say: function to call with a line of advice; by default the line is printed to standard
            error, above that of `Progress`.
    """

    def __init__(self, expected_kl: float | None = None, say: Callable[[str], Any] | None = None):
        super().__init__()
        self._expected_kl = expected_kl
        self._say = say or tell
        self._resumed: dict[str, Any] | None = None

    def state(self) -> dict[str, Any]:
        """Returns what was seen and said so far."""
        return {"seen": asdict(self._seen), "said": self._said}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what was seen and said."""
        check(state, {"seen": _SEEN, "said": [TEXT]}, "the state of HealthAdvice")
        seen = {name: state["seen"][name] for name in _SEEN}
        self._resumed = {"seen": seen, "said": state["said"]}

    def on_train_begin(self, logs: Logs = None) -> None:
        """Starts with an empty history, or with that of the checkpoint."""
        resumed, self._resumed = self._resumed or {"seen": {}, "said": []}, None
        self._seen, self._said = Seen(**resumed["seen"]), list(resumed["said"])
        self._seen.expected_kl = self._expected_kl
        self._seen.box_elements = _box_elements(self.model.action_map)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Applies the rules that have not given advice yet."""
        logs = logs or {}
        self._seen.add(logs)
        self._seen.progress = logs["rollout/steps"] / self.params["total_steps"]
        for rule in RULES:
            if rule.__name__ not in self._said and (advice := rule(self._seen)) is not None:
                self._said.append(rule.__name__)
                self._say(f"advice after {logs['rollout/steps']:,.0f} steps: {advice}")


def _box_elements(action_map: Any) -> int | None:
    """Number of Box elements in an action, over all its parts; None for custom action maps."""
    if isinstance(action_map, JointAction):
        parts = [_box_elements(part) for part in action_map.maps.values()]
        return None if None in parts else sum(part or 0 for part in parts)
    if isinstance(action_map, DiscreteAction | BinAction):
        return 0
    if isinstance(action_map, ClipAction | TanhAction | UnitAction):
        return int(np.prod(action_map.shape))
    return None
