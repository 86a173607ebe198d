"""Every public name on a GPU: what it gives there is what it gives on NumPy, in float64, and stays there."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from everything import TRIES, There

import gpubp
from gpubp import Device


def same(there: Any, host: Any, on: Device) -> None:
    """Equal to rounding; arrays are on the device where NumPy's are the host's."""
    assert isinstance(there, tuple | list) == isinstance(host, tuple | list)
    if isinstance(host, tuple | list):
        assert len(there) == len(host)
        for a, b in zip(there, host, strict=True):
            same(a, b, on)
    elif isinstance(host, np.ndarray | np.generic):
        cupy = sys.modules["cupy"]
        assert isinstance(there, cupy.ndarray)
        assert (there.device.id, there.dtype, there.shape) == (on.native, host.dtype, host.shape)
        np.testing.assert_allclose(there.get(), np.asarray(host), rtol=1e-9, atol=1e-12)
    elif isinstance(host, float):
        assert there == pytest.approx(host, rel=1e-9, abs=1e-12, nan_ok=True)
    else:
        assert there == host


def codes(thing: Any) -> set[Any]:
    """The code that a public name stands for: a function's own, any of a class's."""
    if not inspect.isclass(thing):
        code = getattr(inspect.unwrap(thing), "__code__", None) if callable(thing) else None
        return set() if code is None else {code}
    functions = [getattr(f, "__func__", f) for cls in thing.__mro__[:-1] for f in vars(cls).values()]
    return {f.__code__ for f in functions if hasattr(f, "__code__")}


def found_by(name: str) -> Any:
    """What a public name stands for."""
    thing: Any = gpubp
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing


def public() -> Iterator[str]:
    """Every public name: functions and classes, those of public modules, and methods of these classes."""
    for name in gpubp.__all__:
        thing = getattr(gpubp, name)
        if isinstance(thing, ModuleType):
            names = [f"{name}.{each}" for each in thing.__all__]
            yield from names
        else:
            names = [name]
            yield name
        if name in ("callbacks", "optimizers"):  # the bar is train's; optimizers are at the top too
            continue
        for each in names:
            if inspect.isclass(cls := found_by(each)):
                yield from (f"{each}.{method}" for method in methods(cls))


def methods(cls: Any) -> list[str]:
    named = {name: getattr(cls, name) for name in dir(cls) if not name.startswith("_")}
    return [
        n
        for n, f in named.items()
        # cached properties count as routines too from Python 3.13 on
        if inspect.isroutine(f) and callable(f) and getattr(f, "__module__", "").startswith("gpubp")
    ]


def test_every_public_name_is_tried_on_cupy() -> None:
    tried = [name for _, names in TRIES.values() for name in names]
    assert sorted(tried) == sorted(set(tried))
    assert set(public()) - set(tried) == set()
    assert {name for name in set(tried) - set(public()) if not callable(found_by(name))} == set()


@pytest.mark.unchecked
@pytest.mark.parametrize("name", TRIES)
def test_every_name_on_cupy_is_as_on_numpy(name: str, gpu: Device, tmp_path: Path) -> None:
    function, names = TRIES[name]
    called: set[Any] = set()
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, _: called.add(frame.f_code) if event == "call" else None)
    try:
        there = function(There(gpu, tmp_path))
    finally:
        sys.setprofile(before)
    for each in names:  # what it claims to try was really called, on the device
        wanted = codes(found_by(each))
        assert not wanted or wanted & called, f"{each} was not called"
    same(there, function(There(gpubp.device("cpu"), tmp_path)), gpu)
