"""Random numbers that belong to a customer, not to a batch: row i of a batch draws what it would draw alone.

Counter based, as in Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011); the mixing
function is splitmix64 (Steele, Lea and Flood, OOPSLA 2014). A draw is a hash of (key, counter), so it depends
on nothing but the row's key and on how many numbers the row has drawn before.
"""

import numpy as np
from numpy.typing import NDArray

from engine.records import Bools, Floats, Ints

Keys = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_BLOCK = 128
"""Rows mixed at a time: few enough to stay in the processor's cache, which is worth a factor of five."""


class Draws:
    """One stream of random numbers for each of B rows. Drawing moves the counters of all rows on.

    key: uint64 [B]. counter: uint64 [B], how many numbers each row has drawn. Not for cryptography.
    """

    __slots__ = ("counter", "key")

    def __init__(self, key: Keys, counter: Keys | None = None) -> None:
        self.key: Keys = np.asarray(key, np.uint64)
        self.counter: Keys = np.zeros_like(self.key) if counter is None else np.asarray(counter, np.uint64)

    @classmethod
    def seeded(cls, seed: int, n: int) -> "Draws":
        """Row i gets the key of `seed + i`: an environment with seed s + i equals row i of a batch with s.

        So two seeds that are close share rows; where that matters use `independent`.
        """
        return cls(_mix(np.arange(n, dtype=np.uint64) + np.uint64(seed % 2**64)))

    @classmethod
    def independent(cls, seed: int, n: int, salt: int = 0) -> "Draws":
        """n rows whose streams have nothing in common with those of another seed or another salt."""
        base = _mix(_mix(np.array([seed % 2**64], np.uint64)) + np.array([salt % 2**64], np.uint64) * _GOLDEN)
        return cls(_mix(base ^ _mix(np.arange(n, dtype=np.uint64) + _GOLDEN)))

    def __len__(self) -> int:
        return len(self.key)

    def uniform(self, k: int) -> Floats:
        """Floats [B, k], uniform in [0, 1), with 53 random bits."""
        first, steps = self.key + self.counter * _GOLDEN, np.arange(1, k + 1, dtype=np.uint64) * _GOLDEN
        self.counter = self.counter + np.uint64(k)
        numbers: Floats = np.empty((len(first), k))
        for start in range(0, len(first), _BLOCK):
            bits = _mix(first[start : start + _BLOCK, None] + steps)
            bits >>= np.uint64(11)
            np.multiply(bits, 2.0**-53, out=numbers[start : start + _BLOCK])
        return numbers

    def normal(self, k: int) -> Floats:
        """Floats [B, k], standard normal (Box and Muller 1958); moves the counters on by 2 k."""
        u = self.uniform(2 * k)
        normal: Floats = np.sqrt(-2.0 * np.log1p(-u[:, :k])) * np.cos(2.0 * np.pi * u[:, k:])
        return normal

    def take(self, rows: Ints | Bools) -> "Draws":
        """A copy of the streams of some rows, at the place where they are now."""
        return Draws(self.key[rows].copy(), self.counter[rows].copy())

    def put(self, rows: Ints | Bools, other: "Draws") -> None:
        """Replace the streams of some rows by those of `other`, in its order."""
        self.key[rows] = other.key
        counter = self.counter.copy()
        counter[rows] = other.counter
        self.counter = counter


def _mix(z: Keys) -> Keys:
    """The finaliser of splitmix64: a bijection of 64 bits that leaves no visible structure."""
    z = z ^ (z >> np.uint64(30))
    z *= _FIRST
    z ^= z >> np.uint64(27)
    z *= _SECOND
    z ^= z >> np.uint64(31)
    return z
