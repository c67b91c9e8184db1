"""Statistics of one layer on calibration data: second moments of its inputs, and of inputs with outputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Moments:
    """Means over rows x (inputs of one output) and y (the outputs wanted) of a layer y = x W^T + bias.

    inputs: E[x x^T], [groups, k, k]. cross: E[y x^T], [channels, k] (x of the channel's group). Both about
    the means when the layer has a bias, which then takes whatever the means need.
    input_mean: [groups, k]; output_mean: [channels]; both zero without a bias.
    energy: E[y^2], [channels], about the mean as above.
    """

    inputs: np.ndarray
    cross: np.ndarray
    input_mean: np.ndarray
    output_mean: np.ndarray
    energy: np.ndarray

    def apply(self, matrix: np.ndarray) -> np.ndarray:
        """matrix @ E[x x^T] with each channel's own group: [channels, k] -> [channels, k]."""
        grouped = matrix.reshape(len(self.inputs), -1, matrix.shape[1])
        return (grouped @ self.inputs).reshape(matrix.shape)

    def noise(self, matrix: np.ndarray) -> np.ndarray:
        """E[(x matrix^T - y)^2], [channels], with the best bias where there is one."""
        found = self.energy + ((self.apply(matrix) - 2 * self.cross) * matrix).sum(axis=1)
        return np.maximum(found, 0.0)

    def bias(self, matrix: np.ndarray) -> np.ndarray:
        """float32 [channels]: the bias that keeps each output channel's mean with these weights [channels, k]."""
        grouped = matrix.reshape(len(self.input_mean), -1, matrix.shape[1])
        through = (grouped @ self.input_mean[:, :, None]).ravel()
        return (self.output_mean - through).astype(np.float32)

    def solution(self, damping: float, towards: np.ndarray | None = None) -> np.ndarray:
        """W [channels, k] of least E[(x W^T - y)^2] + damping * mean input energy * |W - towards|^2."""
        grouped = self.cross.reshape(len(self.inputs), -1, self.cross.shape[1])
        pull = damping * self.mean_energy()
        wanted = grouped if towards is None else grouped + pull * towards.reshape(grouped.shape)
        eye = np.eye(self.inputs.shape[1])
        solved = [np.linalg.solve(h + p * eye, b.T).T for h, p, b in zip(self.inputs, pull[:, 0], wanted)]
        return np.concatenate(solved)

    def damped(self, damping: float) -> np.ndarray:
        """E[x x^T] + damping * mean input energy * identity: [groups, k, k], positive definite."""
        return damped(self.inputs, damping)

    def mean_energy(self) -> np.ndarray:
        """Mean of E[x^2] over the inputs, [groups, 1, 1]; 1 where a group's inputs never vary."""
        return mean_energy(self.inputs)


def damped(inputs: np.ndarray, damping: float) -> np.ndarray:
    """E[x x^T] [groups, k, k] + damping * mean input energy * identity, positive definite."""
    return inputs + damping * mean_energy(inputs) * np.eye(inputs.shape[1])


def mean_energy(inputs: np.ndarray) -> np.ndarray:
    """Mean of E[x^2] over the inputs of E[x x^T] [groups, k, k]: [groups, 1, 1]; 1 where a group's are always 0."""
    energy = np.trace(inputs, axis1=1, axis2=2) / inputs.shape[1]
    return np.where(energy > 0, energy, 1.0)[:, None, None]


def inverse_factors(hessian: np.ndarray) -> np.ndarray:
    """Upper triangular U with U^T U = hessian^-1, for each group: [groups, k, k]."""
    return np.stack([np.linalg.cholesky(np.linalg.inv(h)).T for h in hessian])


def unknown(matrix: np.ndarray, groups: int) -> Moments:
    """The moments without data: inputs are alike and independent, so that errors of all weights count the same."""
    k = matrix.shape[1]
    return Moments(
        np.tile(np.eye(k), (groups, 1, 1)),
        matrix.astype(np.float64),
        np.zeros((groups, k)),
        np.zeros(len(matrix)),
        np.square(matrix, dtype=np.float64).sum(axis=1),
    )


class Accumulator:
    """Sums over batches of rows. centred: take moments about the means."""

    def __init__(self, *, centred: bool) -> None:
        self._centred = centred
        self._count = 0
        self._origin: tuple[np.ndarray, np.ndarray] | None = None
        self._sums: list[np.ndarray] = []

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """x: [groups, m, k]; y: [m, channels]."""
        if self._origin is None:  # near the means, so that squares of these don't swamp variances in float32
            share = 1.0 if self._centred else 0.0
            self._origin = share * x.mean(axis=1, keepdims=True), share * y.mean(axis=0)
        x, y = ((a - b).astype(np.float32) for a, b in zip((x, y), self._origin, strict=True))
        grouped = y.reshape(len(y), len(x), -1).transpose(1, 2, 0)
        parts = [x.swapaxes(1, 2) @ x, grouped @ x, x.sum(axis=1), y.sum(axis=0), np.square(y).sum(axis=0)]
        wide = [part.astype(np.float64) for part in parts]
        self._sums = wide if not self._count else [a + b for a, b in zip(self._sums, wide, strict=True)]
        self._count += len(y)

    def moments(self) -> Moments:
        """Needs one row at least."""
        assert self._origin is not None
        inputs, cross, x, y, squares = (total / self._count for total in self._sums)
        if not self._centred:
            x, y = np.zeros_like(x), np.zeros_like(y)
        cross = cross - y.reshape(len(x), -1, 1) * x[:, None]
        return Moments(
            inputs - x[:, :, None] * x[:, None],
            cross.reshape(len(y), -1),
            x + self._origin[0][:, 0],
            y + self._origin[1],
            np.maximum(squares - y**2, 0.0),
        )
