"""Data that comes with gpubp, and data made fit for training."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from gpubp._devices import Device, at, device_of, native_device, to_numpy
from gpubp._numerics import dtype_kind, largest_to_square, long_mean, long_sum, native
from gpubp._typing import Array
from gpubp.engines import engine_for

__all__ = ["Standardizer", "check_finite", "load_digits"]


def load_digits() -> tuple[Any, Any]:
    """The bundled digits: x float32 (1797, 64), 8x8 images with pixels 0..16, and labels int64 (1797,); NumPy.

    Source: UCI "Optical Recognition of Handwritten Digits" test set, E. Alpaydin and C. Kaynak, CC BY 4.0.
    """
    with (files("gpubp") / "data" / "digits.npz").open("rb") as file, np.load(file) as digits:
        return digits["images"].astype(np.float32), digits["labels"].astype(np.int64)


@dataclass(frozen=True, eq=False)
class Standardizer:
    """Columns to mean 0 and standard deviation 1, and back; ``mean`` and ``scale`` are (n,), columns of no variance
    keep scale 1.

    Examples
    --------
    >>> scaler = Standardizer.fit(np.array([[0.0, 5.0], [2.0, 5.0]]))
    >>> scaler.apply(np.array([[4.0, 6.0]]))
    array([[3., 1.]])
    """

    mean: Array
    scale: Array

    @classmethod
    def fit(cls, X: Array) -> Standardizer:
        """From the rows of X (n_rows, n), on X's library and device.

        Raises
        ------
        ValueError : X isn't 2-D, has no rows, holds a non-finite value, or values too large to be squared in its dtype
        TypeError : X isn't float32 or float64
        """
        X = native(X)
        engine = engine_for(X)
        xp = engine.xp
        if dtype_kind(xp, X.dtype) != "real":
            raise TypeError(f"X must be float32 or float64, got {X.dtype}: convert it with astype")
        if X.ndim != 2 or X.shape[0] < 1:
            raise ValueError(
                f"X must have shape (B, n) with B >= 1, got {tuple(X.shape)}: one example per row"
            )
        check_finite("X", X)
        with at(X), engine.quiet():
            mean = long_mean(xp, X)
            scale = xp.sqrt(long_sum(xp, (X - mean) ** 2) / X.shape[0])
            bad = to_numpy(~(xp.isfinite(mean) & xp.isfinite(scale)))
        if bad.any():
            raise ValueError(
                f"X must differ from its mean by less than {largest_to_square(X.dtype):.1e} to be squared in "
                f"{X.dtype}, got larger numbers in column {bad.argmax()}: scale them"
            )
        # A column that differs by rounding alone is constant too.
        with at(X):
            level = xp.max(xp.abs(X), axis=0) * (10.0 * float(xp.finfo(X.dtype).eps))
            return cls(mean, xp.where(scale > level, scale, xp.ones_like(scale)))

    def apply(self, X: Array) -> Array:
        """(X - mean) / scale, of X (B, n)."""
        X = native(X)
        self._check(X)
        with at(X):
            return (X - self.mean) / self.scale

    def invert(self, Z: Array) -> Array:
        """Z scale + mean, of Z (B, n)."""
        Z = native(Z)
        self._check(Z)
        with at(Z):
            return Z * self.scale + self.mean

    def put(self, device: Device) -> Standardizer:
        """The same on another device."""
        return Standardizer(device.put(self.mean), device.put(self.scale))

    def _check(self, X: Array) -> None:
        n = self.mean.shape[0]
        elsewhere = engine_for(X) is not engine_for(self.mean)
        here, there = native_device(self.mean), native_device(X)  # None: JAX is tracing
        if elsewhere or (here is not None and there is not None and here != there):
            home = device_of(X).name
            raise TypeError(
                f"X must be an array like the standardizer's, on {device_of(self.mean).name}, got one on {home}: "
                f"move the standardizer with put(gpubp.device({home!r}))"
            )
        if X.ndim != 2 or X.shape[1] != n:
            raise ValueError(
                f"X must have shape (B, n) with n = {n}, got {tuple(X.shape)}: give the fitted columns"
            )
        if X.dtype != self.mean.dtype:
            raise TypeError(
                f"X must be {self.mean.dtype} like the standardizer, got {X.dtype}: convert it with astype"
            )


def check_finite(name: str, array: Array) -> None:
    xp = engine_for(array).xp
    if dtype_kind(xp, array.dtype) is None and not xp.isdtype(array.dtype, "real floating"):
        return
    with at(array):
        bad = ~xp.isfinite(array)
        found = bool(xp.any(bad))
    if found:
        where = np.argwhere(to_numpy(bad))[0]
        place = f"row {where[0]}" + (f", column {where[1]}" if where.size > 1 else "")
        raise ValueError(f"{name} must be finite, got a NaN or inf at {place}: remove or fill it")
