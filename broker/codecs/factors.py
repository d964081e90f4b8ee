"""The components of a matrix in the order of what they hold, and their entries as small whole numbers.

Components are found by subspace iteration from a random start (Halko et al. 2011, algorithm 4.4): two products each
way were measured to hold all but some thousandths of what the exact decomposition would. The start is fixed, so that
equal matrices give equal bytes on one machine; nothing is remembered from one update to the next.

Levels of .4 of a column's root mean square are about 3.4 bits each. Of one side they are rounded first and the other
side is then solved for anew, which takes up what rounding left.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from broker.codecs.forms import Shape
from broker.codecs.lowrank import LEVEL, MOST_EXPONENT, RANK, SCALE, Matrix
from broker.codecs.pieces import Vector

STEP: Final = 0.4  # of a column's root mean square
BITS: Final = 3.4  # of a level, as zstd codes them
_ITERATIONS: Final = 2
_EASY: Final = 1e-12, 1e12  # norms with which no product leaves float32
_RIDGE: Final = 1e-6
_SMALLEST, _GREATEST = np.finfo(np.float32).tiny, np.finfo(np.float32).max
Levels = NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Components:
    """Of a matrix: `energies` in descending order, and `basis`, shape (components, shorter side), orthonormal rows."""

    energies: NDArray[np.float64]
    basis: Matrix


@dataclass(frozen=True, eq=False)
class Factors:
    """What is sent of a matrix, see lowrank.py; `caught` is how much of its energy, of which error is taken off."""

    scale: float
    exponents: NDArray[np.uint8]
    left: Levels
    right: Levels
    caught: float

    def content(self) -> tuple[bytes, ...]:
        """As it is packed before zstd."""
        head = RANK.pack(len(self.exponents)) + SCALE.pack(self.scale) + self.exponents.tobytes()
        return (head + self.left.tobytes() + self.right.tobytes(),)


NOTHING: Final = RANK.pack(0)


def components(values: Vector, shape: Shape, most: int, *, seed: int) -> Components:
    """The first components of a finite matrix, at most `most`; those that hold nothing are left out."""
    matrix, exponent = _short(values, shape)
    basis = _range(matrix, min(most, len(matrix)), seed)
    product = basis @ matrix
    energies, turn = np.linalg.eigh(product @ product.T)
    energies, turn = energies[::-1].astype(np.float64), turn[:, ::-1]
    held = int(np.count_nonzero(energies > energies[:1] * 1e-12))
    return Components(energies[:held] * 4.0**exponent, np.ascontiguousarray(turn[:, :held].T @ basis))


def factors(values: Vector, shape: Shape, basis: Matrix) -> Factors | None:
    """The matrix by the components in `basis`; None if nothing of it is large enough for a float32."""
    matrix, exponent = _short(values, shape)
    first = _levels(basis, STEP * _sizes(basis))
    gram, seen = first @ first.T, first @ matrix
    second = _solved(gram, seen)
    steps = STEP * _sizes(second)
    scale = float(steps.max(initial=0)) / 2**MOST_EXPONENT
    if np.ldexp(scale, exponent) < _SMALLEST:
        return None
    exponents = np.clip(np.rint(np.log2(np.maximum(steps / scale, 1))), 0, MOST_EXPONENT)
    units = (scale * np.exp2(exponents)).astype(np.float32)
    second = _levels(second, units)
    sent = second * units[:, None]
    caught = 2 * float(np.vdot(sent, seen)) - float(np.vdot(sent @ sent.T, gram))
    highest = float((np.abs(first) * (np.exp2(exponents) * np.abs(second).max(axis=1))[:, None]).sum(axis=0).max())
    sides = first.astype(np.int8), second.astype(np.int8)
    left, right = sides if shape[0] <= shape[1] else sides[::-1]
    whole = min(float(np.ldexp(scale, exponent)), float(_GREATEST) / max(highest, 1) * (1 - 1e-6))
    return Factors(whole, exponents.astype(np.uint8), left, right, caught * 4.0**exponent)


def row(values: Vector) -> tuple[bytes, ...]:
    """The content of a vector by itself: a matrix of one row."""
    if not len(values):
        return (NOTHING,)
    found = factors(values, (1, len(values)), np.ones((1, 1), dtype=np.float32))
    return (NOTHING,) if found is None else found.content()


def square(values: Vector) -> float:
    """The energy of a vector, whatever its size."""
    easy, exponent = _at_ease(values)
    return float(np.dot(easy, easy)) * 4.0**exponent


def _short(values: Vector, shape: Shape) -> tuple[Matrix, int]:
    """The matrix with its shorter side first, over a power of two that is 0 for all but the oddest."""
    values, exponent = _at_ease(values)
    matrix = values.reshape(shape)
    return (matrix if shape[0] <= shape[1] else matrix.T), exponent


def _at_ease(values: Vector) -> tuple[Vector, int]:
    with np.errstate(over="ignore"):
        norm = np.sqrt(np.dot(values, values))
    if _EASY[0] < norm < _EASY[1]:
        return values, 0
    _, exponent = np.frexp(np.abs(values).max(initial=0))
    return np.ldexp(values, -exponent), int(exponent)


def _range(matrix: Matrix, rank: int, seed: int) -> Matrix:
    """`rank` orthonormal rows that span nearly what the matrix's strongest columns do."""
    short, long = matrix.shape
    if rank == short:
        return np.eye(short, dtype=np.float32)
    seen = np.random.default_rng(seed).standard_normal((long, rank), dtype=np.float32)
    for _ in range(_ITERATIONS - 1):
        seen = matrix.T @ np.linalg.qr(matrix @ seen)[0]
    return np.linalg.qr(matrix @ seen)[0].T


def _solved(gram: Matrix, seen: Matrix) -> Matrix:
    """Least squares: the second side that goes best with the first, now that it is rounded."""
    wide = gram.astype(np.float64)
    wide[np.diag_indices(len(wide))] += _RIDGE * np.trace(wide) / max(1, len(wide))
    second: Matrix = np.linalg.inv(wide).astype(np.float32) @ seen
    return second


def _sizes(rows: Matrix) -> Vector:
    """The root mean square of each row."""
    found: Vector = np.sqrt(np.einsum("ij,ij->i", rows, rows) / np.float32(rows.shape[1]))
    return found


def _levels(rows: Matrix, steps: Vector) -> Matrix:
    """The nearest whole numbers of steps."""
    steps = np.where(steps > 0, steps, np.float32(np.inf))
    found: Matrix = np.clip(np.rint(rows / steps[:, None]), -LEVEL, LEVEL)
    return found
