"""The engines agree with the generic one verb by verb, and none has a verb of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import Place, library

from gpubp import Network, activations, backprop, optimizers
from gpubp.engines import Generic, Numpy, engine_for
from gpubp.engines.cupy import Cupy

MOST_VERBS = 12
B, N_I, N_J = 5, 4, 3


def verbs(engine: type[Generic]) -> dict[str, inspect.Signature]:
    """The public methods that a class defines itself."""
    return {name: inspect.signature(f) for name, f in vars(engine).items() if callable(f) and name[0] != "_"}


def strangers(engine: type[Generic]) -> list[str]:
    """The verbs that an engine adds, or signs otherwise than the generic one."""
    known = verbs(Generic)
    return [name for name, signature in verbs(engine).items() if known.get(name) != signature]


def test_no_engine_adds_or_re_signs_a_verb() -> None:
    assert len(verbs(Generic)) <= MOST_VERBS
    assert issubclass(Cupy, Numpy)
    for engine in (Numpy, Cupy):
        assert strangers(engine) == []
        assert set(verbs(engine)) <= set(verbs(Generic))


def test_strangers_are_found() -> None:
    class Odd(Numpy):
        def propagate(self, Delta: Any, W: Any, out: Any = None, fast: bool = False) -> Any:
            return super().propagate(Delta, W, out)

        def convolve(self, q: Any) -> Any:
            return q

        def weigh(self, Delta: Any, weights: Any) -> Any:  # type: ignore[override]
            return super().weigh(Delta, weights)

        sum_rows = Numpy.sum_rows

    assert strangers(Odd) == ["propagate", "convolve", "weigh"]


def test_every_verb_says_what_it_does() -> None:
    assert all((vars(Generic)[name].__doc__ or "").strip() for name in verbs(Generic))


@pytest.fixture(params=["numpy", "cupy on numpy", "cupy"])
def engines(request: pytest.FixtureRequest) -> tuple[Generic, Generic, Place]:
    """An engine, the generic one on the same arrays, and where these live."""
    place: Place = Place("numpy", "", "float64")
    if request.param == "cupy":
        place = Place("cupy", "", "float64")
        from gpubp._devices import why_no_gpu

        if (reason := why_no_gpu()) is not None:
            pytest.skip(reason)
    made: dict[str, Callable[[], Generic]] = {"numpy": Numpy, "cupy on numpy": lambda: Cupy(np), "cupy": Cupy}
    return made[request.param](), Generic(place.xp), place


def of(*shape: int) -> Any:
    return np.random.default_rng(shape).standard_normal(shape)


ROWS = np.array([3, 0, 3])
# verb, arguments, shape of the result, which argument may be out as well
CALLS: list[tuple[str, tuple[Any, ...], tuple[int, ...], int | None]] = [
    ("gather", (of(B, N_I), ROWS), (3, N_I), None),
    ("gather", (of(B), ROWS), (3,), None),
    ("affine", (of(B, N_I), of(N_J, N_I), of(N_J)), (B, N_J), None),
    ("affine", (of(B, N_I), of(N_J, N_I), None), (B, N_J), None),
    *(("activate", (name, of(B, N_J)), (B, N_J), 1) for name in activations.names()),
    *(("pull_back", (name, of(B, N_J), "q", of(N_J, B).T), (B, N_J), 3) for name in activations.names()),
    ("propagate", (of(B, N_J), of(N_J, N_I)), (B, N_I), None),
    ("contract", (of(B, N_J), of(B, N_I)), (N_J, N_I), None),
    ("sum_rows", (of(B, N_J),), (N_J,), None),
    ("weigh", (of(B, N_J), of(B)), (B, N_J), None),
    ("weigh", (of(B, N_J), 0.25), (B, N_J), None),
]
assert {verb for verb, *_ in CALLS} | {"quiet", "buffer", "join", "update"} == set(verbs(Generic))


def arguments(call: tuple[Any, ...], place: Place) -> list[Any]:
    """Fresh arrays here; names become activations, and "q" what the activation makes of p."""
    found: list[Any] = []
    for argument in call:
        if isinstance(argument, np.ndarray):
            found.append(place.array(argument.copy()))
        elif argument == "q":
            found.append(found[0].value(place.xp, found[1]))
        else:
            found.append(activations.get(argument) if isinstance(argument, str) else argument)
    return found


WAYS = [
    (*call, way)
    for call in CALLS
    for way in ("without out", "with out", *(() if call[-1] is None else ("in place",)))
]


@pytest.mark.parametrize("verb", verbs(Generic))
def test_who_may_work_in_place(verb: str) -> None:
    allowed = "``out`` may be" in (vars(Generic)[verb].__doc__ or "")
    assert allowed == (verb == "update" or any(call[0] == verb and call[-1] is not None for call in CALLS))


@pytest.mark.parametrize(("verb", "call", "shape", "shared", "way"), WAYS)
def test_verbs(
    engines: tuple[Generic, Generic, Place],
    verb: str,
    call: tuple[Any, ...],
    shape: tuple[int, ...],
    shared: int | None,
    way: str,
) -> None:
    engine, generic, place = engines
    given = arguments(call, place)
    right = place.host(getattr(generic, verb)(*arguments(call, place)))
    assert right.shape == shape
    out = engine.buffer(shape, like=place.array(of(1)))
    assert out is not None
    out[...] = np.nan
    ours = getattr(engine, verb)(
        *given, **{"without out": {}, "with out": {"out": out}, "in place": {"out": given[shared or 0]}}[way]
    )
    np.testing.assert_allclose(place.host(ours), right, rtol=1e-15, atol=1e-15)
    kept = [
        k for k, a in enumerate(call) if isinstance(a, np.ndarray) and not (way == "in place" and k == shared)
    ]
    for k in kept:
        np.testing.assert_array_equal(place.host(given[k]), call[k])


def test_products_go_into_out(engines: tuple[Generic, Generic, Place]) -> None:
    """The gradient is assembled in place: whoever asks for out gets it, where the engine has buffers."""
    engine, _, place = engines
    flat = engine.buffer((N_J * N_I + N_J,), place.array(of(1)))
    assert flat is not None
    Delta, q = place.array(of(B, N_J)), place.array(of(B, N_I))
    W, b = flat[: N_J * N_I].reshape(N_J, N_I), flat[N_J * N_I :]
    parts = [engine.contract(Delta, q, out=W), engine.sum_rows(Delta, out=b)]
    assert all(part is view for part, view in zip(parts, (W, b), strict=True))
    assert engine.join(parts, out=flat) is flat
    right = np.concatenate([(of(B, N_J).T @ of(B, N_I)).ravel(), of(B, N_J).sum(0)])
    np.testing.assert_allclose(place.host(flat), right, rtol=1e-14)
    np.testing.assert_allclose(place.host(engine.join(parts)), right, rtol=1e-14)


def test_buffers(engines: tuple[Generic, Generic, Place]) -> None:
    engine, generic, place = engines
    like = place.array(of(2), "float32")
    buffer = engine.buffer((3, 2), like)
    assert buffer is not None
    assert (tuple(buffer.shape), buffer.dtype) == ((3, 2), like.dtype)
    assert generic.buffer((3, 2), like) is None


@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 40000])
@pytest.mark.parametrize("name", optimizers.names())
def test_updates_in_blocks(engines: tuple[Generic, Generic, Place], name: str, size: int) -> None:
    engine, generic, place = engines
    optimizer = optimizers.get(name)
    rng = np.random.default_rng(size)
    arrays = [place.array(abs(rng.standard_normal(size))) for _ in range(2 + optimizer.slots)]
    numbers = optimizer.numbers(0.01, 3)
    right = [place.host(a).copy() for a in generic.update(optimizer.formula, arrays, numbers)]
    pure = engine.update(optimizer.formula, arrays, numbers)
    assert not any(a is b for a in pure for b in arrays)
    out = (arrays[0], *arrays[2:])
    g = place.host(arrays[1]).copy()
    ours = engine.update(optimizer.formula, arrays, numbers, out)
    assert all(a is b for a, b in zip(ours, out, strict=True))
    for a, b, c in zip(ours, pure, right, strict=True):
        np.testing.assert_array_equal(place.host(a), c)
        np.testing.assert_array_equal(place.host(b), c)
    np.testing.assert_array_equal(place.host(arrays[1]), g)


def test_numpy_updates_in_blocks_that_stay_in_cache() -> None:
    sizes: dict[str, list[int]] = {"numpy": [], "cupy": []}

    def formula(xp: Any, w: Any, seen: list[int]) -> tuple[Any]:
        seen.append(w.size)
        return (w + 1,)

    for name, engine in (("numpy", Numpy()), ("cupy", Cupy(np))):
        w = np.zeros(40000)
        engine.update(formula, [w], [sizes[name]], [w])
        assert (w == 1).all()
    assert sizes == {"numpy": [6667] * 5 + [6665], "cupy": [40000]}


@pytest.mark.parametrize("name", ["identity", "tanh", "softmax"])
def test_large_matrices_go_in_blocks_of_rows(name: str) -> None:
    sigma = activations.get(name)
    rng = np.random.default_rng(0)
    p, g = rng.standard_normal((2, 1000, 37))
    q = sigma.value(np, p)
    Delta = Generic(np).pull_back(sigma, p, q, g)
    for out in (p.copy(), np.empty_like(p)):
        np.testing.assert_array_equal(Numpy().activate(sigma, p, out=out), q)
        np.testing.assert_array_equal(Numpy().pull_back(sigma, p, q, g, out=out), Delta)
    np.testing.assert_array_equal(Numpy().pull_back(sigma, p, q, g, out=g), Delta)
    np.testing.assert_array_equal(Numpy().activate(sigma, p, out=p), q)


@pytest.mark.parametrize("engine", [Numpy(), Cupy(np)])
def test_what_is_overwritten_is_read_as_the_same_object(engine: Numpy) -> None:
    """Of two views of one array CuPy would copy the one that it reads."""
    seen = []

    class Library:
        def multiply(self, g: Any, slope: Any, out: Any) -> Any:
            seen.append(g is out)
            return np.multiply(g, slope, out=out)

    engine.library = Library()
    p, g = of(B, N_J), of(N_J, B).T.copy()
    sigma = activations.get("tanh")
    right = Generic(np).pull_back(sigma, p, np.tanh(p), g)
    assert engine.pull_back(sigma, p, np.tanh(p), g, out=g) is g
    np.testing.assert_array_equal(g, right)
    assert seen == [True]


def test_columns_are_summed_by_rows_of_ones_kept(engines: tuple[Generic, Generic, Place]) -> None:
    """Batches of other sizes and dtypes, also larger than what is kept."""
    engine, generic, place = engines
    for rows in (3, 7, 2, 70_000, 7):
        for dtype in ("float32", "float64"):
            Delta = place.array(
                np.random.default_rng(rows).integers(-9, 9, (rows, 4)).astype("float64"), dtype
            )
            total = engine.sum_rows(Delta)
            assert total.dtype == Delta.dtype
            np.testing.assert_array_equal(place.host(total), place.host(generic.sum_rows(Delta)))


def test_quiet(place64: Place) -> None:
    x = place64.array([1e4, 0.0])
    with engine_for(x).quiet():
        assert place64.host(place64.xp.exp(x)).tolist() == [np.inf, 1.0]
        assert np.isnan(place64.host(x * 0.0 / (x * 0.0))).all()


def test_a_gpu_is_quiet_by_itself() -> None:
    with Cupy(np).quiet(), pytest.warns(RuntimeWarning, match="overflow"):
        np.exp(np.array([1e4]))


def test_which_engine(place64: Place) -> None:
    found = engine_for(place64.array(of(2)))
    assert type(found) is {"numpy": Numpy, "cupy": Cupy}.get(place64.name, Generic)
    assert engine_for(place64.array(of(3, 2))) is found


class Pure(Generic):
    """Remembers the verbs used."""

    def __init__(self, xp: Any) -> None:
        super().__init__(xp)
        self.used: set[str] = set()

    def __getattribute__(self, name: str) -> Any:
        if name in verbs(Generic):
            self.used.add(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("cost", ["cross_entropy", "huber"])
def test_whole_gradients_agree(cost: str) -> None:
    """Every engine under the same heart; all verbs but gather and update are met on the way."""
    library("array_api_strict")
    net = Network((6, 5, 4, 3), hidden=("tanh", "softmax"), cost=cost)
    rng = np.random.default_rng(0)
    w, x, y, s = (rng.random(shape) for shape in ((net.n_weights,), (7, 6), (7, 3), (7,)))
    pure, strict = Pure(np), Place("strict", "CPU_DEVICE", "float64")
    right = backprop.cost_and_gradient(net, pure, w, x, y, s)
    assert pure.used | {"gather", "update", "quiet"} == set(verbs(Generic))
    engines: list[tuple[Generic, Place]] = [
        (Numpy(), Place("numpy", "", "float64")),
        (Cupy(np), Place("numpy", "", "float64")),
        (Generic(strict.xp), strict),
    ]
    for engine, place in engines:
        w_, x_, y_, s_ = (place.array(a) for a in (w, x, y, s))
        for room in (backprop.no_room, backprop.Workspace(engine, w_)):
            ours = backprop.cost_and_gradient(net, engine, w_, x_, y_, s_, room=room)
            for a, b in zip(ours, right, strict=True):
                np.testing.assert_allclose(place.host(a), b, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("columns", [1, 2, 10, 32, 33])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_rows_of_narrow_matrices_are_numpys(columns: int, keepdims: bool, axis: int | None) -> None:
    xp = Numpy().formulas
    x = np.random.default_rng(0).standard_normal((9, columns))
    for given in (x, x[::2], np.where(x > 1.0, np.nan, x), x.astype("float32")):
        ours, theirs = (
            xp.max(given, axis=axis, keepdims=keepdims),
            np.max(given, axis=axis, keepdims=keepdims),
        )
        np.testing.assert_array_equal(ours, theirs)
        ours, theirs = (
            xp.sum(given, axis=axis, keepdims=keepdims),
            np.sum(given, axis=axis, keepdims=keepdims),
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=2e-6)  # another order
        assert np.shape(ours) == np.shape(theirs)
        assert ours.dtype == given.dtype
    assert xp.sum(x, axis=1, dtype=np.float32).dtype == np.float32
    assert xp.tanh is np.tanh
    assert xp.__name__ == "numpy"
