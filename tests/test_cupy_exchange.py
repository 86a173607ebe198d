"""Arrays of other libraries on a GPU, by DLPack and ``__cuda_array_interface__``: their memory is shared."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import numpy as np
import pytest

import gpubp
from gpubp import Device, Network
from gpubp._devices import device_of

NET = Network((3, 4, 2), hidden="tanh")
HOST = np.random.default_rng(0).standard_normal((6, 3))
W = NET.init(1, dtype="float64")
KINDS = ["interface", "interface without stream", "interface of version 2", "DLPack", "both"]


class Foreign:
    """Another library's array: what it says of itself, and nothing else."""

    def __init__(self, array: Any, kind: str, **said: Any) -> None:
        self.array = array
        if kind.startswith("interface") or kind == "both":
            about = {**array.__cuda_array_interface__, **said}
            if kind == "interface without stream":
                about["stream"] = None
            if kind == "interface of version 2":
                del about["stream"]
                about["version"] = 2
            self.__cuda_array_interface__ = about
        if kind in ("DLPack", "both"):
            self.shape, self.dtype = array.shape, array.dtype
            self.__dlpack__ = array.__dlpack__
            self.__dlpack_device__ = array.__dlpack_device__


@pytest.fixture
def cupy(gpu: Device) -> Any:
    return sys.modules["cupy"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["C", "F", "strided", "reversed", "empty", "0-d"])
def test_foreign_arrays_share_their_memory_with_cupy(kind: str, layout: str, cupy: Any, gpu: Device) -> None:
    whole = cupy.asarray(HOST)
    parts = {"C": np.s_[:], "F": np.s_[:], "strided": np.s_[::2, 1:], "reversed": np.s_[::-1]}
    place: Any = {**parts, "empty": np.s_[:0], "0-d": np.s_[1, 2]}[layout]
    array: Any
    array, host = (a.T if layout == "F" else a[place] for a in (whole, HOST))
    put = gpu.put(Foreign(array, kind))
    assert isinstance(put, cupy.ndarray)
    assert (put.dtype, put.shape) == (host.dtype, host.shape)
    assert put.size == 0 or put.data.ptr == array.data.ptr
    np.testing.assert_array_equal(put.get(), host)
    np.testing.assert_array_equal(gpubp.device("cpu").put(Foreign(array, kind)), host)


@pytest.mark.parametrize("kind", KINDS)
def test_foreign_arrays_live_as_long_as_cupys_view(kind: str, cupy: Any, gpu: Device) -> None:
    array = cupy.asarray(HOST)
    owner = weakref.ref(array)
    foreign = Foreign(array, kind)
    put = gpu.put(foreign)
    del array, foreign
    gc.collect()
    assert owner() is not None
    np.testing.assert_array_equal(put.get(), HOST)
    del put
    gc.collect()
    assert owner() is None


def test_read_only_foreign_arrays_are_shared_and_not_written_to(cupy: Any, gpu: Device) -> None:
    array, w = cupy.asarray(HOST), cupy.asarray(W)
    y = cupy.asarray(HOST[:, :2])
    x = gpu.put(Foreign(array, "interface", data=(array.data.ptr, True)))
    assert x.data.ptr == array.data.ptr
    first = gpu.put(Foreign(w, "interface", data=(w.data.ptr, True)))
    gpubp.train(NET, x, y, w=first, epochs=2, batch_size=2, progress=False, sample_weight=y[:, 0] ** 2)
    NET.backward(first, x, y)
    for there, host in ((array, HOST), (w, W), (y, HOST[:, :2])):
        np.testing.assert_array_equal(there.get(), host)


@pytest.mark.parametrize("kind", ["interface", "DLPack"])
def test_put_waits_for_the_foreign_arrays_stream(kind: str, cupy: Any, gpu: Device) -> None:
    """The interface names its stream; DLPack's producer is told ours, and lets it wait for its own."""
    theirs, ours = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    for _ in range(5):
        with theirs:
            array = cupy.full((300, 300), np.nan)
            for k in range(10):
                array[...] = float(k)
            foreign = Foreign(array, kind)

        def export(array: Any = array, **asked: Any) -> Any:
            with theirs:
                return array.__dlpack__(**asked)

        foreign.__dlpack__ = export
        with ours:
            there = gpu.put(foreign)
            assert there.data.ptr == array.data.ptr
            np.testing.assert_array_equal((there + 1.0).get(), np.full((300, 300), 10.0))


@pytest.mark.parametrize("kind", KINDS)
def test_foreign_arrays_of_another_gpu(kind: str, cupy: Any, gpus: tuple[Device, Device]) -> None:
    first, second = gpus
    with second.current():
        array = cupy.asarray(HOST)
    for made, host in ((array, HOST), (array[::2, 1:], HOST[::2, 1:]), (array.T, HOST.T)):
        for target in gpus:
            put = target.put(Foreign(made, kind))
            assert device_of(put) == target
            assert (put.data.ptr == made.data.ptr) == (target == second)
            np.testing.assert_array_equal(put.get(), host)
        np.testing.assert_array_equal(gpubp.device("cpu").put(Foreign(made, kind)), host)
    assert cupy.cuda.runtime.getDevice() == first.native


@pytest.mark.parametrize("kind", KINDS)
def test_foreign_arrays_are_refused_until_they_are_put(kind: str, cupy: Any, gpu: Device) -> None:
    x, w = Foreign(cupy.asarray(HOST), kind), cupy.asarray(W)
    for call in (
        lambda: NET.predict(w, x),
        lambda: gpubp.train(NET, x, w, progress=False),
        lambda: gpubp.Standardizer.fit(x),
    ):
        with pytest.raises(
            TypeError,
            match=r"^arrays of NumPy, CuPy or .* needed, got Foreign: .* gpubp.device\(name\)\.put$",
        ):
            call()
    np.testing.assert_allclose(NET.predict(w, gpu.put(x)).get(), NET.predict(W, HOST), rtol=1e-12)


def test_what_cupy_gives_goes_out_without_a_copy(cupy: Any, gpu: Device) -> None:
    run = gpubp.train(NET, HOST, HOST[:, :2], device=gpu, epochs=1, progress=False)
    for array in (run.w, NET.forward(run.w, gpu.put(HOST)).p[1], NET.layers(run.w)[0][0]):
        assert cupy.from_dlpack(array).data.ptr == array.data.ptr
        assert array.__cuda_array_interface__["data"] == (array.data.ptr, False)
        with pytest.raises(TypeError, match="Implicit conversion"):
            np.asarray(array)
        with pytest.raises((BufferError, RuntimeError)):
            np.from_dlpack(array)


def test_managed_memory_is_cupys_too(cupy: Any, gpu: Device) -> None:
    with cupy.cuda.using_allocator(cupy.cuda.malloc_managed):
        array = cupy.asarray(HOST)
    assert gpu.put(array) is array
    for kind in KINDS:
        assert gpu.put(Foreign(array, kind)).data.ptr == array.data.ptr
    np.testing.assert_array_equal(gpubp.device("cpu").put(array), HOST)
