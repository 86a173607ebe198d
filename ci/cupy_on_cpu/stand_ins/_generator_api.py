"""In place of cupy.random's new generators, whose code only NVIDIA's compiler makes: they refuse."""

from __future__ import annotations

from typing import Any, NoReturn


def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
    raise NotImplementedError(
        "cupy.random.Generator and BitGenerator are not emulated: draw with NumPy, or cupy.random.RandomState"
    )


class Generator:
    __init__ = _refuse


class FeistelBijection:
    __init__ = _refuse


init_curand = random_raw = _refuse
