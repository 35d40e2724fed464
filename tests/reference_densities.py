"""Densities of one element in NumPy float64, from their definitions, and numerical integrals."""

import math

import numpy as np

erf = np.vectorize(math.erf)


def integral(f, low, high, loc, scale, nodes=200):
    """Integrates f over [low, high] by Gauss-Legendre sums between points around a peak.

    Args:
        f: function of an array.
        low, high: finite bounds.
        loc, scale: location and width of the peak.
    """
    steps = np.concatenate([np.arange(-10, 10.5, 0.5), [-40, -20, 20, 40]])
    borders = np.unique(np.clip(np.concatenate([loc + scale * steps, [low, high, 0.0]]), low, high))
    x, w = np.polynomial.legendre.leggauss(nodes)
    half, middle = np.diff(borders)[:, None] / 2, (borders[:-1] + borders[1:])[:, None] / 2
    values = f(middle + half * x) * half * w
    return values.sum()


def normal(loc, scale):
    """Returns the log-density of the normal distribution."""
    return lambda x: -0.5 * ((x - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)


def truncated_gaussian(loc, scale):
    """Returns the log-density of the normal distribution truncated to [-1, 1]."""
    inside = 0.5 * (erf((1 - loc) / scale / 2**0.5) - erf((-1 - loc) / scale / 2**0.5))
    return lambda x: normal(loc, scale)(x) - np.log(inside)


def beta(a, b):
    """Returns the log-density of the beta distribution."""
    constant = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return lambda x: constant + (a - 1) * np.log(x) + (b - 1) * np.log1p(-x)


def squashed_normal_entropy(loc, scale):
    """Returns the entropy of tanh(x) for normal x, from a partition of (-1, 1).

    It is -sum P log(P / width) over many narrow cells tanh([a, b]), whose width is
    sinh(b - a) / (cosh a cosh b).
    """
    x = np.linspace(loc - 9 * scale, loc + 9 * scale, 200_001)
    a, b = x[:-1], x[1:]
    log_cosh = np.logaddexp(x, -x) - np.log(2)
    log_width = np.log(np.sinh(b - a)) - log_cosh[:-1] - log_cosh[1:]
    middle = 0.5 * (a + b)
    log_mass = normal(loc, scale)(middle) + np.log(b - a)
    return -(np.exp(log_mass) * (log_mass - log_width)).sum()
