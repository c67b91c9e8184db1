"""How sparse a model is at each step of its training."""

from __future__ import annotations

# Of a run's steps, the schedule takes this share; the rest trains what is left.
SHARE = 0.7


def gradual(done: float, final: float) -> float:
    """s_t = s_f + (s_i - s_f)(1 - t/T)^3 with s_i = 0 (M. Zhu and S. Gupta, "To prune, or not to prune", 2017,
    equation 1). done: t/T, from 0 on."""
    return final - final * (1 - min(done, 1.0)) ** 3


def rounds(number: int, count: int, final: float) -> float:
    """After round 1, .. of `count`: each removes the same share of what is left (S. Han et al., "Learning both
    weights and connections", 2015; J. Frankle and M. Carbin, "The lottery ticket hypothesis", 2019)."""
    return 1 - (1 - final) ** (number / count)
