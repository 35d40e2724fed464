"""Checks that a policy and an environment agree on observations and actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from ppo_tf import spaces
from ppo_tf.actions.specs import action_spec
from ppo_tf.networks import recurrent
from ppo_tf.networks.models import observation_space
from ppo_tf.policies.policy import Policy
from ppo_tf.types import Nest


def observed_paths(policy: Policy, envs: gymnasium.vector.VectorEnv) -> list[str]:
    """Returns the paths of the observations that the actor takes; empty for a plain space."""
    wanted = recurrent.input_paths(policy.actor)
    paths = spaces.paths(observation_space(envs))
    return [path for path in paths if wanted is None or path in wanted]


def example_observations(
    envs: gymnasium.vector.VectorEnv, generator: np.random.Generator, paths: list[str]
) -> Nest:
    """Draws observations [num_envs, ...] of moderate magnitude, as they reach the policy; of a
    composite space, only the leaves `paths`. The spaces' own random state stays as it is."""

    def draw(space: Any) -> np.ndarray:
        shape = (envs.num_envs, *(space.shape or ()))
        if isinstance(space, gymnasium.spaces.Discrete):
            values = space.start + generator.integers(space.n, size=shape)
        elif isinstance(space, gymnasium.spaces.MultiDiscrete):
            values = space.start + generator.integers(space.nvec, size=shape)
        elif isinstance(space, gymnasium.spaces.MultiBinary):
            values = generator.integers(2, size=shape)
        elif np.issubdtype(space.dtype, np.floating):
            values = generator.normal(size=shape)
        else:
            values = generator.integers(space.low, space.high, size=shape, endpoint=True)
        return values.astype(spaces.observed_dtype(space.dtype))

    leaves = spaces.leaves(observation_space(envs))
    return (
        {path: draw(leaves[path]) for path in paths} if isinstance(leaves, dict) else draw(leaves)
    )


def check_actions(policy: Policy, envs: gymnasium.vector.VectorEnv) -> None:
    """Raises ValueError unless the policy's parameters and actions fit the action space, and it has
    deterministic actions as well."""
    example = example_observations(envs, np.random.default_rng(0), observed_paths(policy, envs))
    parameters, _ = policy.step(example, policy.initial_state(envs.num_envs))
    space = envs.single_action_space
    _check_sizes(policy, parameters, space)
    policy.draw(parameters, None)  # raises unless there are deterministic actions
    actions = policy.action_map(policy.draw(parameters, np.array([1, 2], np.int32)))
    made, wanted = _described(actions, 1), _described(spaces.leaves(space), 0)
    if made != wanted:
        raise ValueError(f"The policy's actions must fit {space}: {wanted}. Received: {made}")


def _check_sizes(
    policy: Policy, parameters: Mapping[str, Any], space: gymnasium.Space[Any]
) -> None:
    """Checks the parameters' sizes, one logit per category for instance, where a distribution is
    the default for its space."""
    try:
        usual = action_spec(space)
    except ValueError:  # a space that only custom distributions support
        return
    families = getattr(policy.family, "families", {"": policy.family})
    usual_families = getattr(usual.family, "families", {"": usual.family})
    for path in families.keys() & usual_families.keys():
        given = parameters[path] if path else parameters
        sizes = usual.parameters[path] if path else usual.parameters
        made = {name: int(tensor.shape[-1]) for name, tensor in given.items()}
        if families[path] == usual_families[path] and made != sizes:
            raise ValueError(
                f"The actor's parameters{f' of {path!r}' if path else ''} must have the sizes "
                f"{sizes} for the action space {space}. Received: {made}"
            )


def _described(nest: Any, first: int) -> Any:
    """The dtype and shape of each leaf, without the first axes."""
    if isinstance(nest, dict):
        return {path: _described(nest[path], first) for path in sorted(nest)}
    dtype = np.dtype(getattr(nest.dtype, "name", nest.dtype))
    return f"{dtype.name}{list(tuple(nest.shape or ())[first:])}"
