"""NumPy float64 oracles, written forward from the sums in the papers.

None of them uses a reverse recurrence, so library and oracle cannot share a bug. Trajectories are
arrays [T, B]; samples are arrays [n] or [n, k].
"""

from __future__ import annotations

import math

import numpy as np


def _as_float64(*arrays):
    return [np.asarray(array, np.float64) for array in arrays]


def reward_to_go(rewards, values, next_values, terminated, truncated, *, gamma, baseline=True):
    """A_t = sum_{l=0}^{k-1} gamma^l r_{t+l} + gamma^k V(s_{t+k}) - V(s_t).

    Schulman et al. 2016 (arXiv 1506.02438), eq. 18. k steps remain until the episode or the
    segment ends; V(s_{t+k}) counts as 0 if s_{t+k} is terminal.

    Returns:
        (advantages, targets), float64 [T, B].
    """
    rewards, values, next_values = _as_float64(rewards, values, next_values)
    horizon, num_envs = rewards.shape
    returns = np.zeros_like(rewards)
    for t in range(horizon):
        for b in range(num_envs):
            for step in range(horizon - t):
                now = t + step
                returns[t, b] += gamma**step * rewards[now, b]
                if terminated[now, b]:
                    break
                if truncated[now, b] or now == horizon - 1:
                    returns[t, b] += gamma ** (step + 1) * next_values[now, b]
                    break
    return (returns - values if baseline else returns), returns


def n_step(rewards, values, next_values, terminated, truncated, *, n, gamma):
    """A_t = sum_{l=0}^{k-1} gamma^l r_{t+l} + gamma^k V(s_{t+k}) - V(s_t), k at most n.

    Mnih et al. 2016 (arXiv 1602.01783), section 4. k is less than n where the episode or the
    segment ends earlier; V(s_{t+k}) counts as 0 if s_{t+k} is terminal.

    Returns:
        (advantages, targets), float64 [T, B].
    """
    rewards, values, next_values = _as_float64(rewards, values, next_values)
    horizon, num_envs = rewards.shape
    returns = np.zeros_like(rewards)
    for t in range(horizon):
        for b in range(num_envs):
            for step in range(n):
                now = t + step
                returns[t, b] += gamma**step * rewards[now, b]
                if terminated[now, b]:
                    break
                if truncated[now, b] or now == horizon - 1 or step == n - 1:
                    returns[t, b] += gamma ** (step + 1) * next_values[now, b]
                    break
    return returns - values, returns


def gae(rewards, values, next_values, terminated, truncated, *, gamma, gae_lambda):
    """A_t = sum_{l>=0} (gamma lambda)^l delta_{t+l}, until the episode or the segment ends.

    delta_t = r_t + gamma V(s_{t+1}) - V(s_t), V(s_{t+1}) counting as 0 if s_{t+1} is terminal.
    Schulman et al. 2016 (arXiv 1506.02438), eq. 16; Schulman et al. 2017 (arXiv 1707.06347),
    eq. 11 and 12.

    Returns:
        (advantages, targets), float64 [T, B].
    """
    rewards, values, next_values = _as_float64(rewards, values, next_values)
    horizon, num_envs = rewards.shape
    delta = rewards + gamma * np.where(terminated, 0.0, next_values) - values
    advantages = np.zeros_like(rewards)
    for t in range(horizon):
        for b in range(num_envs):
            for step in range(horizon - t):
                advantages[t, b] += (gamma * gae_lambda) ** step * delta[t + step, b]
                if terminated[t + step, b] or truncated[t + step, b]:
                    break
    return advantages, advantages + values


def trajectory_return(rewards, values, next_values, terminated, truncated, *, gamma):
    """A_t = sum_l gamma^l r_l from the first row of t's episode in the segment to its last, closed
    with gamma^k V(s_k) unless s_k is terminal; targets as `reward_to_go`'s.

    Returns:
        (advantages, targets), float64 [T, B].
    """
    rewards, values, next_values = _as_float64(rewards, values, next_values)
    horizon, num_envs = rewards.shape
    advantages = np.zeros_like(rewards)
    for b in range(num_envs):
        first = 0
        for t in range(horizon):
            if terminated[t, b] or truncated[t, b] or t == horizon - 1:
                total = sum(gamma**k * r for k, r in enumerate(rewards[first : t + 1, b]))
                if not terminated[t, b]:
                    total += gamma ** (t + 1 - first) * next_values[t, b]
                advantages[first : t + 1, b] = total
                first = t + 1
    _, targets = reward_to_go(rewards, values, next_values, terminated, truncated, gamma=gamma)
    return advantages, targets


def vtrace(
    rewards,
    values,
    next_values,
    terminated,
    truncated,
    importance_weights,
    *,
    gamma,
    trace_lambda,
    rho_max,
    c_max,
):
    """v_s = V(s) + sum_t gamma^(t-s) (prod_{i<t} c_i) delta_t, until the episode or segment ends.

    delta_t = min(rho_max, w_t) (r_t + gamma V(s_{t+1}) - V(s_t)), c_i = lambda min(c_max, w_i).
    Espeholt et al. 2018 (arXiv 1802.01561), eq. 1, and remark 2 for lambda. The advantage is
    r_t + gamma (lambda v_{t+1} + (1 - lambda) V(s_{t+1})) - V(s_t).

    Returns:
        (advantages, targets), float64 [T, B].
    """
    rewards, values, next_values, w = _as_float64(rewards, values, next_values, importance_weights)
    horizon, num_envs = rewards.shape
    error = rewards + gamma * np.where(terminated, 0.0, next_values) - values
    targets, advantages = values.copy(), error.copy()
    for b in range(num_envs):
        for s in range(horizon):
            product = 1.0
            for t in range(s, horizon):
                term = gamma ** (t - s) * product * min(rho_max, w[t, b]) * error[t, b]
                targets[s, b] += term
                product *= trace_lambda * min(c_max, w[t, b])
                if terminated[t, b] or truncated[t, b]:
                    break
    for b in range(num_envs):
        for t in range(horizon - 1):
            if not (terminated[t, b] or truncated[t, b]):
                correction = targets[t + 1, b] - values[t + 1, b]
                advantages[t, b] += gamma * trace_lambda * correction
    return advantages, targets


def discounted_sum(x, decay):
    """y_t = sum_{l>=0} x_{t+l} prod_{j<l} decay_{t+j}, float64 [T, B]."""
    x, decay = _as_float64(x, decay)
    y = np.zeros_like(x)
    for t in range(len(x)):
        for later in range(t, len(x)):
            y[t] += x[later] * np.prod(decay[t:later], axis=0)
    return y


def policy_gradient_loss(new_log_prob, advantages):
    """L = -log pi_new(a|s) A, float64 [n].

    Schulman et al. 2017 (arXiv 1707.06347), eq. 2, with a minus sign.
    """
    new_log_prob, advantages = _as_float64(new_log_prob, advantages)
    return -new_log_prob * advantages


def clip_loss(new_log_prob, old_log_prob, advantages, *, epsilon, epsilon_high=None):
    """L = -min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A), r = pi_new / pi_old, float64 [n].

    Schulman et al. 2017 (arXiv 1707.06347), eq. 7, with a minus sign. Written case by case: a
    good action (A > 0) earns no more than the upper bound, a bad one no less than the lower.
    """
    new_log_prob, old_log_prob, advantages = _as_float64(new_log_prob, old_log_prob, advantages)
    high = 1.0 + (epsilon if epsilon_high is None else epsilon_high)
    loss = np.empty_like(advantages)
    for i, advantage in enumerate(advantages):
        ratio = math.exp(new_log_prob[i]) / math.exp(old_log_prob[i])
        bounded = min(ratio, high) if advantage >= 0 else max(ratio, 1.0 - epsilon)
        loss[i] = -bounded * advantage
    return loss


def kl_penalty_loss(new_log_prob, old_log_prob, advantages, kl, *, coefficient):
    """L = -(r A - beta KL(old || new)), r = pi_new / pi_old, float64 [n].

    Schulman et al. 2017 (arXiv 1707.06347), eq. 8, with a minus sign.
    """
    new_log_prob, old_log_prob, advantages, kl = _as_float64(
        new_log_prob, old_log_prob, advantages, kl
    )
    return -(np.exp(new_log_prob) / np.exp(old_log_prob) * advantages - coefficient * kl)


def softmax(logits):
    """p_i = exp(x_i) / sum_j exp(x_j) over the last axis, float64."""
    (logits,) = _as_float64(logits)
    weights = np.exp(logits)
    return weights / weights.sum(axis=-1, keepdims=True)


def categorical_kl(old_logits, new_logits):
    """KL(old || new) = sum_i p_i log(p_i / q_i) in nats, 0 log 0 = 0; float64 [n].

    Cover and Thomas, Elements of Information Theory, eq. 2.26.
    """
    old, new = softmax(old_logits), softmax(new_logits)
    kl = np.zeros(len(old))
    for i in range(old.shape[0]):
        for j in range(old.shape[1]):
            if old[i, j] > 0:
                kl[i] += old[i, j] * math.log(old[i, j] / new[i, j])
    return kl


def categorical_entropy(logits):
    """H = -sum_i p_i log p_i in nats, 0 log 0 = 0; float64 [n].

    Cover and Thomas, Elements of Information Theory, eq. 2.1.
    """
    entropy = np.zeros(len(logits))
    for i, row in enumerate(softmax(logits)):
        entropy[i] = -sum(p * math.log(p) for p in row if p > 0)
    return entropy


def gaussian_log_prob(x, loc, scale):
    """log p(x) = -sum_i [(x_i - mu_i)^2 / (2 sigma_i^2) + log sigma_i + log(2 pi) / 2]; [n].

    The density of independent normal variables, Schulman et al. 2015 (arXiv 1502.05477), app. D.
    """
    x, loc, scale = _as_float64(x, loc, scale)
    terms = (x - loc) ** 2 / (2.0 * scale**2) + np.log(scale) + 0.5 * math.log(2.0 * math.pi)
    return -terms.sum(axis=-1)


def gaussian_kl(old_loc, old_scale, new_loc, new_scale):
    """KL(old || new) = sum_i [log(s'_i / s_i) + (s_i^2 + (m_i - m'_i)^2) / (2 s'_i^2) - 1/2].

    Between Gaussians with diagonal covariance, in nats; m and s are the old ones, m' and s' the
    new; float64 [n]. Kingma and Welling 2014 (arXiv 1312.6114), appendix B, for any second
    Gaussian.
    """
    old_loc, old_scale, new_loc, new_scale = _as_float64(old_loc, old_scale, new_loc, new_scale)
    terms = (
        np.log(new_scale / old_scale)
        + (old_scale**2 + (old_loc - new_loc) ** 2) / (2.0 * new_scale**2)
        - 0.5
    )
    return terms.sum(axis=-1)


def gaussian_entropy(scale):
    """H = sum_i log(sigma_i sqrt(2 pi e)) in nats, float64 [n]; Cover and Thomas, eq. 8.8."""
    (scale,) = _as_float64(scale)
    return np.log(scale * math.sqrt(2.0 * math.pi * math.e)).sum(axis=-1)


def scaled_rewards(rewards, done, valid, *, gamma, clip, epsilon):
    """r_t / sqrt(Var[R] + epsilon), clipped, with R_t = sum_l gamma^l r_{t-l} within the episode.

    Var[R] is over the R_t of all valid rows. "The 37 implementation details of PPO" (ICLR blog
    2022), detail 8 of those for continuous actions. Invalid rows give 0 and do not count.

    Args:
        rewards, done, valid: [T, B], everything seen since the start.
        gamma, clip, epsilon: float.

    Returns:
        float64 [T, B].
    """
    (rewards,) = _as_float64(rewards)
    horizon, num_envs = rewards.shape
    returns = []
    for b in range(num_envs):
        episode = []  # the rewards of the current episode, oldest first
        for t in range(horizon):
            if valid[t, b]:
                episode.append(rewards[t, b])
                returns.append(sum(gamma**age * r for age, r in enumerate(reversed(episode))))
            if done[t, b]:
                episode = []
    scaled = np.where(valid, rewards, 0.0) / math.sqrt(np.var(returns) + epsilon)
    return np.clip(scaled, -clip, clip)
