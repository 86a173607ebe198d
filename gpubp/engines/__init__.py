"""How the verbs of forward, backward and training are executed, library by library.

``engine_for(array)`` is the only way to an engine; nothing above this floor asks which one it got.

generic : any library of the Array API standard
numpy : NumPy, writing into arrays made beforehand
cupy : CuPy, as NumPy does it
"""

from __future__ import annotations

from functools import cache
from typing import Any

import array_api_compat
import numpy as np

from gpubp._typing import Array, Namespace
from gpubp.engines.generic import Generic
from gpubp.engines.numpy import Numpy

__all__ = ["Generic", "Numpy", "engine_for"]


def __dir__() -> list[str]:
    return __all__


def engine_for(array: Array) -> Generic:
    """The engine that computes on arrays of this kind.

    Raises
    ------
    TypeError : not an array of a library that follows the Array API standard
    """
    engine = _by_type.get(type(array))
    return engine if engine is not None else _find(array)


_by_type: dict[type, Generic] = {}


def _find(array: Any) -> Generic:
    kind = type(array)
    if isinstance(array, np.ma.MaskedArray | np.matrix):
        raise TypeError(f"arrays must be plain, got {kind.__name__}: fill or convert it with numpy.asarray")
    if not array_api_compat.is_array_api_obj(array):
        shares = hasattr(array, "__cuda_array_interface__") or hasattr(array, "__dlpack__")
        raise TypeError(
            f"arrays of NumPy, CuPy or another Array API library are needed, got {kind.__name__}: "
            f"make it one with {'gpubp.device(name).put' if shares else 'numpy.asarray'}"
        )
    _by_type[kind] = _of_namespace(array_api_compat.array_namespace(array))
    return _by_type[kind]


@cache
def _of_namespace(xp: Namespace) -> Generic:
    if xp.__name__ == "array_api_compat.numpy":
        return Numpy()
    if xp.__name__ == "array_api_compat.cupy":  # needs a GPU
        from gpubp.engines.cupy import Cupy

        return Cupy()
    return Generic(xp)
