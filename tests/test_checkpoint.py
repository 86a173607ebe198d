"""save and load: round trips, what other tools read, every way to spoil a file, and files that were made to mislead."""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PLACES, Place
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes

import gpubp
from gpubp import Activation, CheckpointError, Cost, Network, Saved, Standardizer
from gpubp._checkpoint import _digest
from gpubp._devices import device_of

NET = Network((3, 4, 2), hidden="leaky_relu(slope=0.2)", cost="cross_entropy")
W = NET.init(1) + np.float32(0.01)
SCALER = Standardizer(np.array([1.0, -2.0, 0.5]), np.array([1.0, 3.0, 0.1]))
LABELS = ("café", 7)
without_jax = pytest.mark.parametrize("place", [p for p in PLACES if p.name != "jax"], indirect=True, ids=str)


def square() -> Activation:
    return Activation(lambda xp, p: p * p, lambda xp, p, q: 2.0 * p, name="square")


def quartic() -> Cost:
    return Cost(
        lambda xp, q, y: xp.sum((q - y) ** 4, axis=1), lambda xp, q, y: 4.0 * (q - y) ** 3, name="quartic"
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small file of everything."""
    path = tmp_path / "model.gpubp"
    gpubp.save(path, NET, W, scaler=SCALER, labels=LABELS)
    return path


def same(saved: Saved, net: Network = NET, w: Any = W, scaler: Any = SCALER, labels: Any = LABELS) -> bool:
    """Whether it is what was saved, to the last bit."""

    def bits(w: Any, scaler: Any) -> list[Any]:
        arrays = [w] if scaler is None else [w, scaler.mean, scaler.scale]
        return [(array.dtype, array.shape, array.tobytes()) for array in arrays]

    return saved.net == net and saved.labels == labels and bits(saved.w, saved.scaler) == bits(w, scaler)


def forge(path: Path, arrays: dict[str, Any] | None = None, **about: Any) -> None:
    """A file as ``save`` would seal it, with other contents; None leaves a key out."""
    with safe_open(path, framework="numpy") as opened:
        known = {**opened.metadata(), **about}
    known = {key: value for key, value in known.items() if value is not None}
    arrays = {**load_file(path), **(arrays or {})}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    known["sha256"] = _digest(known, arrays)
    path.write_bytes(to_bytes(arrays, known))


# round trips


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "net",
    [
        NET,
        Network((1, 1)),
        Network((3, 4, 2), bias=False),
        Network(
            (2, 5, 4, 3, 1), hidden=("elu(alpha=0.3)", "gelu", "selu"), cost="huber(delta=0.1)", input="tanh"
        ),
        Network((3, 2), output="sigmoid", cost="quantile(tau=0.9)"),
    ],
    ids=str,
)
def test_round_trips(tmp_path: Path, net: Network, dtype: str) -> None:
    w = np.random.default_rng(0).standard_normal(net.n_weights).astype(dtype)
    w[0] = -0.0
    gpubp.save(tmp_path / "a", net, w)
    assert same(gpubp.load(tmp_path / "a"), net, w, None, None)
    n = net.sizes[0]
    scaler = Standardizer(np.arange(n).astype(dtype), 1 + np.arange(n).astype(dtype))
    labels = tuple("abcdefgh"[: max(2, net.sizes[-1])])
    gpubp.save(str(tmp_path / "a"), net, w, scaler=scaler, labels=list(labels))
    loaded = gpubp.load(str(tmp_path / "a"))
    assert same(loaded, net, w, scaler, labels)
    assert len(list(loaded)) == 4
    loaded.w[:] = 0.0  # the caller's own
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "labels", [("a", "b"), (0, 1), (1.5, -2.0), (True, False), np.array(["x", "y"]), np.arange(2)]
)
def test_labels_come_back(tmp_path: Path, labels: Any) -> None:
    gpubp.save(tmp_path / "a", NET, W, labels=labels)
    loaded = gpubp.load(tmp_path / "a").labels
    assert loaded == tuple(labels)
    assert [type(label) for label in loaded or ()] == [
        type(getattr(v, "item", lambda v=v: v)()) for v in labels
    ]


@without_jax
def test_from_and_to_every_library(tmp_path: Path, place: Place) -> None:
    w = place.array(W)
    scaler = Standardizer(place.array(SCALER.mean), place.array(SCALER.scale))
    gpubp.save(tmp_path / "a", NET, w, scaler=scaler)
    host = [part.astype(place.dtype) for part in (W, SCALER.mean, SCALER.scale)]
    assert same(gpubp.load(tmp_path / "a"), w=host[0], scaler=Standardizer(*host[1:]), labels=None)
    there = gpubp.load(tmp_path / "a", device=device_of(w))
    assert there.scaler is not None
    assert all(map(place.here, (there.w, there.scaler.mean, there.scaler.scale)))
    np.testing.assert_array_equal(place.host(there.w), host[0])
    x = place.array(np.ones((2, 3)))
    assert place.here(there.net.predict(there.w, there.scaler.apply(x)))


def test_from_jax(tmp_path: Path, jax: Any) -> None:
    w = jax.numpy.asarray(W)
    gpubp.save(tmp_path / "a", NET, w)
    assert same(gpubp.load(tmp_path / "a"), scaler=None, labels=None)
    assert isinstance(gpubp.load(tmp_path / "a", device=device_of(w)).w, type(w))


def test_safetensors_reads_it(file: Path) -> None:
    arrays = load_file(file)
    layers = NET.layers(W)
    assert set(arrays) == {"W0", "W1", "b0", "b1", "scaler.mean", "scaler.scale"}
    for i, (matrix, bias) in enumerate(layers):
        np.testing.assert_array_equal(arrays[f"W{i}"], matrix)
        np.testing.assert_array_equal(arrays[f"b{i}"], bias)
    np.testing.assert_array_equal(arrays["scaler.scale"], SCALER.scale)
    with safe_open(file, framework="numpy") as opened:
        about = opened.metadata()
    assert (about["format"], about["version"], len(about["sha256"])) == ("gpubp", "1", 64)
    assert json.loads(about["network"]) == {
        "sizes": [3, 4, 2],
        "input": "identity",
        "hidden": ["leaky_relu(slope=0.2)"],
        "output": "softmax",
        "cost": "cross_entropy",
        "bias": True,
    }
    assert json.loads(about["labels"]) == list(LABELS)


@pytest.mark.parametrize(
    "view",
    [
        lambda w: np.repeat(w, 2)[::2],
        lambda w: w[::-1].copy()[::-1],
        lambda w: np.stack([w, w], axis=1)[:, 1],
        lambda w: np.asfortranarray(np.stack([w, w]))[0],
    ],
)
def test_views_are_saved_right(tmp_path: Path, view: Callable[[Any], Any]) -> None:
    w, mean, scale = map(view, (W, SCALER.mean, SCALER.scale))
    assert not w.flags.c_contiguous
    gpubp.save(tmp_path / "a", NET, w, scaler=Standardizer(mean, scale))
    assert same(gpubp.load(tmp_path / "a"), labels=None)


def test_views_of_torch_are_saved_right(tmp_path: Path, torch: Any) -> None:
    w = torch.tensor(np.stack([W, -W], axis=1)).requires_grad_()[:, 0]
    gpubp.save(tmp_path / "a", NET, w)
    assert same(gpubp.load(tmp_path / "a"), scaler=None, labels=None)


def test_a_trained_network(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).standard_normal((20, 3)), np.arange(20) % 2
    run = gpubp.train(NET, x, y, device="cpu", epochs=2, progress=False)
    gpubp.save(tmp_path / "a", run.net, run.w)
    net, w, *_ = gpubp.load(tmp_path / "a")
    np.testing.assert_array_equal(net.predict(w, x), run.predict(x))


# one's own parts


def test_parts_of_ones_own(tmp_path: Path) -> None:
    mine, cost = square(), quartic()
    net = Network((3, 4, 5, 2), hidden=(mine, "tanh"), input=mine, output=mine, cost=cost)
    w = net.init(0)
    gpubp.save(tmp_path / "a", net, w)
    loaded = gpubp.load(tmp_path / "a", activations=[mine], costs=[cost])
    assert same(loaded, net, w, None, None)
    assert loaded.net.sigma[1] is mine
    for activations, costs, words in (
        (
            [],
            [cost],
            r"the activation 'square' isn't built in: pass your own, gpubp.load\(path, activations=\[...\]\)",
        ),
        ([mine], [], r"the cost 'quartic' isn't built in: pass your own, gpubp.load\(path, costs=\[...\]\)"),
        ([], [], r"isn't built in: pass your own"),
    ):
        with pytest.raises(CheckpointError, match=words):
            gpubp.load(tmp_path / "a", activations=activations, costs=costs)


def own(name: str) -> Activation:
    return Activation(lambda xp, p: 2.0 * p, lambda xp, p, q: 2.0 * xp.ones_like(p), name=name)


@pytest.mark.parametrize(
    "name", ["relu", "leaky_relu", "leaky_relu(slope=0.2)", "ReLU", " relu", "relu(", "relu(3)"]
)
def test_a_built_ins_name_is_taken(tmp_path: Path, file: Path, name: str) -> None:
    net = Network((3, 2), output=own(name))
    with pytest.raises(
        ValueError, match=r"a part of your own must have a name of its own, got .*: rename it"
    ):
        gpubp.save(tmp_path / "a", net, net.init(0))
    assert not (tmp_path / "a").exists()
    with pytest.raises(
        ValueError, match=r"a part of your own must have a name of its own, got .*: rename it"
    ):
        gpubp.load(file, activations=[own(name)])


def test_a_built_in_costs_name_is_taken(tmp_path: Path) -> None:
    cost = Cost(quartic().value, quartic().derivative, name="Huber")
    net = Network((3, 2), cost=cost)
    with pytest.raises(
        ValueError, match=r"a part of your own must have a name of its own, got 'Huber': rename it"
    ):
        gpubp.save(tmp_path / "a", net, net.init(0))


def test_two_parts_of_one_name(tmp_path: Path) -> None:
    net = Network((3, 4, 5, 2), hidden=(own("mine"), own("mine")))
    with pytest.raises(ValueError, match=r"a part of your own must have a name of its own, got 'mine'"):
        gpubp.save(tmp_path / "a", net, net.init(0))
    with pytest.raises(ValueError, match=r"a part of your own must have a name of its own, got 'mine'"):
        gpubp.load(tmp_path / "a", activations=[own("mine"), own("mine")])
    twice = own("mine")
    net = Network((3, 4, 5, 2), hidden=(twice, twice))
    gpubp.save(tmp_path / "a", net, net.init(0))
    assert gpubp.load(tmp_path / "a", activations=[twice, twice]).net == net


@pytest.mark.parametrize(
    "parts", [{"activations": ["relu"]}, {"costs": [square()]}, {"activations": [np.tanh]}]
)
def test_what_is_no_part(file: Path, parts: Any) -> None:
    kind = "costs" if "costs" in parts else "activations"
    with pytest.raises(TypeError, match=rf"{kind} must hold gpubp.{kind[:-1].title()} objects, got "):
        gpubp.load(file, **parts)


# spoilt files


def test_truncated_anywhere(file: Path) -> None:
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"model\.gpubp must be a"):
            gpubp.load(file)


@pytest.mark.parametrize("flip", [0x01, 0x20, 0xFF], ids=hex)
def test_every_flipped_byte(file: Path, flip: int) -> None:
    """Is found, or, in the header's blanks, of no consequence."""
    whole = file.read_bytes()
    passed = 0
    for k in range(len(whole)):
        file.write_bytes(whole[:k] + bytes([whole[k] ^ flip]) + whole[k + 1 :])
        try:
            assert same(gpubp.load(file)), k
            passed += 1
        except CheckpointError:
            pass
    assert passed < 8


@pytest.mark.parametrize("more", [b"\0", b"{}", bytes(64)])
def test_lengthened(file: Path, more: bytes) -> None:
    whole = file.read_bytes()
    for k in (0, 8, 100, len(whole) - 20, len(whole)):
        file.write_bytes(whole[:k] + more + whole[k:])
        with pytest.raises(CheckpointError):
            gpubp.load(file)


def header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 an npz or a PyTorch file",
        (2**63).to_bytes(8, "little") + b"{}",
        (2**64 - 1).to_bytes(8, "little") + b"{}",
        header(b"{}"),
        header(b"[]"),
        header(b"null"),
        header(b'{"__metadata__": null}'),
        header(b'{"__metadata__": "format"}'),
        header(b'{"__metadata__": {"format": "pt"}}'),
        header(b'{"__metadata__": ["gpubp"]}'),
        header(b"\xff\xfe{}"),
        header(b"[" * 200_000),
        header(b'{"a":' * 100_000),
        header(b'{"__metadata__": ' + b"1" * 10_000 + b"}"),
        to_bytes({"W0": np.ones((2, 3), "float32")}),
        to_bytes({"W0": np.ones((2, 3), "float32")}, {"format": "pt", "version": "1"}),
        pickle.dumps({"W0": [1.0]}),
    ],
)
def test_foreign_files(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"must be a (whole )?gpubp model file, got .*(kind|cut off)"):
        gpubp.load(file)


def test_a_header_of_many_bytes_is_not_read(file: Path) -> None:
    file.write_bytes((2**21).to_bytes(8, "little") + b" " * 2**21)
    with pytest.raises(CheckpointError, match=r"must be a whole gpubp model file"):
        gpubp.load(file)


def test_labels_too_many_for_a_header(tmp_path: Path) -> None:
    """What couldn't be loaded is not saved."""
    net = Network((1, 3000), bias=False)
    labels = [f"{k:0400d}" for k in range(3000)]
    with pytest.raises(ValueError, match=r"labels must fit .* 1048576 bytes"):
        gpubp.save(tmp_path / "a", net, net.init(0), labels=labels)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("version", ["2", "1.0", "", None])
def test_other_versions(file: Path, version: str | None) -> None:
    forge(file, version=version)
    with pytest.raises(
        CheckpointError, match=rf"must have format version 1, got {version}: use the gpubp that wrote it"
    ):
        gpubp.load(file)


# files made to mislead: whole and sealed


def described(**changed: Any) -> str:
    right = {
        "sizes": [3, 4, 2],
        "input": "identity",
        "hidden": ["relu"],
        "output": "softmax",
        "cost": "cross_entropy",
        "bias": True,
    }
    return json.dumps({key: value for key, value in {**right, **changed}.items() if value is not ...})


def test_a_forged_file_is_read_as_far_as_it_is_right(file: Path) -> None:
    forge(file, network=described())
    assert same(gpubp.load(file), Network((3, 4, 2), cost="cross_entropy"))


FORGED: dict[str, list[Any]] = {
    **{key: [..., 5, None, {}, [], "", [[]]] for key in ("input", "output", "cost")},
    "bias": [..., None, "no", 1, []],
    "sizes": [
        *(
            ...,
            5,
            None,
            {},
            [],
            "",
            "342",
            [[]],
            [3],
            [3, 0, 2],
            [3, -4, 2],
            [3, 4.0, 2],
            ["3", 4, 2],
            [3, True, 2],
        ),
        *([10**9, 10**9, 10**9], [10**30, 4, 2], [3, 5, 2], [3, 4, 3], [4, 4, 2]),
    ],
    "hidden": [
        *(
            ...,
            5,
            None,
            {},
            [],
            "",
            "relu",
            ["relu", "relu"],
            [None],
            [5],
            [["relu"]],
            ["relu(3)"],
            ["elu(alpha=nan)"],
        ),
        *(["os.system"], ["builtins.eval"], ["__import__('os')"]),
    ],
}
FORGED["cost"] += ["os.system", "squared_error(2)"]
FORGED["output"] += ["identity", "os.system('true')"]


@pytest.mark.parametrize("changed", [{key: value} for key in FORGED for value in FORGED[key]], ids=str)
def test_forged_networks(file: Path, changed: dict[str, Any]) -> None:
    forge(file, network=described(**changed))
    loaded = set(sys.modules)
    with pytest.raises(CheckpointError, match=r"model\.gpubp|must have shape|a model needs"):
        gpubp.load(file)
    assert set(sys.modules) == loaded


@pytest.mark.parametrize("network", [None, "", "{", "null", "[]", "5", '"relu"', "[" * 100_000, "1" * 5000])
def test_forged_descriptions(file: Path, network: str | None) -> None:
    forge(file, network=network)
    with pytest.raises(CheckpointError, match=r"must describe a network"):
        gpubp.load(file)


@pytest.mark.parametrize(
    "labels",
    [
        None,
        "",
        "5",
        '"ab"',
        '{"a": 1, "b": 2}',
        "[1]",
        "[1, 2, 3]",
        "[[1], [2]]",
        '["a", null]',
        "[" * 100_000,
    ],
)
def test_forged_labels(file: Path, labels: str | None) -> None:
    forge(file, labels=labels)
    with pytest.raises(CheckpointError):
        gpubp.load(file)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"W0": None}, r"a model needs the arrays W0, W1, b0, b1, got W1, b0, b1, scaler.mean, scaler.scale"),
        ({"W2": np.ones(3, "float32")}, r"a model needs the arrays W0, W1, b0, b1, got W0, W1, W2"),
        ({"scaler.scale": None}, r"a model needs the arrays"),
        (
            {"W0": np.ones((3, 4), "float32")},
            r"W0 must have shape \(4, 3\), got \(3, 4\): it belongs to another",
        ),
        ({"scaler.mean": np.ones(4)}, r"scaler.mean must have shape \(3,\), got \(4,\)"),
        ({"b0": np.ones(4, "float64")}, r"must be float32 or float64 like every weight, got float"),
        ({"b0": np.ones(4, "float16")}, r"must be float32 or float64 like every weight, got float"),
        ({"b0": np.ones(4, "int32")}, r"must be float32 or float64 like every weight, got "),
        ({"b0": np.array([1, np.nan, 1, 1], "float32")}, r"b0 must be finite, got a NaN or inf"),
        ({"scaler.mean": np.array([1, np.inf, 1])}, r"scaler.mean must be finite, got a NaN or inf"),
    ],
)
def test_forged_arrays(file: Path, arrays: dict[str, Any], words: str) -> None:
    forge(file, arrays)
    with pytest.raises(CheckpointError, match=words):
        gpubp.load(file)


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3", "C64", "F6", "nonsense"])
def test_dtypes_that_numpy_lacks(file: Path, kind: str) -> None:
    whole = file.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    text = json.loads(whole[8 : 8 + length])
    text["b0"]["dtype"] = kind
    file.write_bytes(header(json.dumps(text).encode()) + whole[8 + length :])
    with pytest.raises(CheckpointError):
        gpubp.load(file)


def test_nothing_is_unpickled(file: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "sprung"),)

    file.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(CheckpointError):
        gpubp.load(file)
    assert not (tmp_path / "sprung").exists()


# refusals


def test_missing_files_and_devices(file: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        gpubp.load(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r" must be a regular file, got a folder: copy the contents"):
        gpubp.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        gpubp.save(tmp_path / "none" / "a", NET, W)
    with pytest.raises(RuntimeError, match=r"device 'cuda:99' needs CuPy"):
        gpubp.load(file, device="cuda:99")


def bad(array: Any, value: float = np.nan) -> Any:
    array = array.copy()
    array[1] = value
    return array


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"net": W}, TypeError, r"net must be a gpubp.Network, got ndarray"),
        ({"w": W[:-1]}, ValueError, r"w must have shape \(n_weights,\) with n_weights = 26, got \(25,\)"),
        ({"w": W[None]}, ValueError, r"w must have shape \(n_weights,\)"),
        (
            {"w": bad(W)},
            ValueError,
            r"W0 must be finite, got a NaN or inf: train again with a lower learning rate",
        ),
        ({"w": bad(W, np.inf)}, ValueError, r"W0 must be finite, got a NaN or inf"),
        (
            {"w": W.astype("float16")},
            ValueError,
            r"W0 must be float32 or float64 like every weight, got float16",
        ),
        ({"w": W.astype(int)}, ValueError, r"W0 must be float32 or float64 like every weight, got int64"),
        ({"w": W + 0j}, ValueError, r"W0 must be float32 or float64 like every weight, got complex64"),
        ({"w": W.tolist()}, TypeError, r"Array API library are needed, got list"),
        (
            {"scaler": Standardizer(np.ones(4), np.ones(4))},
            ValueError,
            r"scaler.mean must have shape \(3,\), got \(4,\)",
        ),
        ({"scaler": Standardizer(bad(np.ones(3)), np.ones(3))}, ValueError, r"scaler.mean must be finite"),
        (
            {"scaler": Standardizer(np.ones(3), bad(np.ones(3), 0.0))},
            ValueError,
            r"scaler.scale must be above 0",
        ),
        ({"scaler": (1.0, 2.0)}, TypeError, r"scaler must be a gpubp.Standardizer, got tuple"),
        ({"labels": ["a"]}, ValueError, r"labels must name the 2 outputs, got 1 names: give one each"),
        ({"labels": ["a", "b", "c"]}, ValueError, r"labels must name the 2 outputs, got 3 names"),
        ({"labels": "ab"}, TypeError, r"labels must be a sequence of names, got str"),
        (
            {"labels": ["a", None]},
            TypeError,
            r"labels must be text or numbers, got NoneType: convert them with str",
        ),
        ({"labels": ["a", b"b"]}, TypeError, r"labels must be text or numbers, got bytes"),
        ({"labels": ["a", ["b"]]}, TypeError, r"labels must be text or numbers, got list"),
    ],
)
def test_refusals_leave_the_file_as_it_was(
    file: Path, wrong: dict[str, Any], error: type[Exception], words: str
) -> None:
    whole = file.read_bytes()
    with pytest.raises(error, match=words):
        gpubp.save(file, **{"net": NET, "w": W, **wrong})
    assert file.read_bytes() == whole
    assert os.listdir(file.parent) == [file.name]


# whole or not at all


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_failure_midway_leaves_the_old_file(
    file: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: type[BaseException]
) -> None:
    whole = file.read_bytes()

    def fail(*_: object, **__: object) -> None:
        assert len(os.listdir(file.parent)) == 2
        raise error("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(os, where, fail)
        with pytest.raises(error, match="the disk is full"):
            gpubp.save(file, NET, -W)
    assert file.read_bytes() == whole
    assert os.listdir(file.parent) == [file.name]
    gpubp.save(file, NET, -W)
    assert same(gpubp.load(file), w=-W, scaler=None, labels=None)


def test_all_of_it_is_flushed_before_it_takes_the_place(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    fsync, replace = os.fsync, os.replace

    def flush(number: int) -> None:
        fsync(number)
        done.append(os.fstat(number).st_size)

    def move(source: Any, target: Any) -> None:
        done.append((Path(source).parent, Path(target).name, len(Path(source).read_bytes())))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", move)
    gpubp.save(file, NET, W)
    size = len(file.read_bytes())
    assert done[:2] == [size, (file.parent, file.name, size)]


def test_many_at_once(file: Path, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-5)  # one save between two looks of another
    errors: list[BaseException] = []

    def write(k: int) -> None:
        try:
            for _ in range(40):
                gpubp.save(file, NET, np.full_like(W, k))
                loaded = gpubp.load(file)
                assert np.unique(loaded.w).size == 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_stays_one(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    gpubp.save(tmp_path / "link", NET, -W)
    assert (tmp_path / "link").is_symlink()
    assert same(gpubp.load(file), w=-W, scaler=None, labels=None)


# names of features


FEATURES = ("größe", "x\0y", "__proto__")


def test_features_come_back(tmp_path: Path) -> None:
    given: list[Any] = [FEATURES, list(FEATURES), np.array(["a", "b", "c"])]
    for features in given:
        gpubp.save(tmp_path / "a", NET, W, scaler=SCALER, labels=LABELS, features=features)
        loaded = gpubp.load(tmp_path / "a")
        assert same(loaded)
        assert loaded.features == tuple(features)
        assert set(map(type, loaded.features or ())) == {str}


def test_without_features_the_file_is_the_same_as_ever(file: Path) -> None:
    """One that was written before features were known, to its digest, and it still loads."""
    old = Path(__file__).parent / "data" / "model_0_1.gpubp"
    w = (np.arange(26) / 8 - 1).astype(np.float32)
    scaler = Standardizer(np.array([1.0, -2.0, 0.5]), np.array([1.0, 3.0, 0.125]))
    assert same(gpubp.load(old), w=w, scaler=scaler)
    assert gpubp.load(old).features is None
    gpubp.save(file, NET, w, scaler=scaler, labels=LABELS)
    with safe_open(file, framework="numpy") as ours, safe_open(old, framework="numpy") as theirs:
        assert ours.metadata() == theirs.metadata()


@pytest.mark.parametrize(
    ("features", "error", "words"),
    [
        (
            ["a", "b"],
            ValueError,
            r"features must name the n_0 = 3 inputs, got 2 names, 2 of them different: give each",
        ),
        (
            ["a", "b", "a"],
            ValueError,
            r"the n_0 = 3 inputs, got 3 names, 2 of them different: give each a name of",
        ),
        (
            ["a", "b", ""],
            ValueError,
            r"got 3 names, 3 of them different, and an empty one: give each a name of its own",
        ),
        ("abc", TypeError, r"features must be a sequence of names, got str: put them in a list"),
        (5, TypeError, r"features must be a sequence of names, got int: put them in a list"),
        (["a", "b", 3], TypeError, r"features must be text, got int: convert them with str"),
        (["a", "b", None], TypeError, r"features must be text, got NoneType: convert them with str"),
        (["a", "b", "c" * 2**20], ValueError, r"features must fit the file's header of 1048576 bytes"),
    ],
)
def test_features_that_are_refused(file: Path, features: Any, error: type[Exception], words: str) -> None:
    whole = file.read_bytes()
    with pytest.raises(error, match=words):
        gpubp.save(file, NET, W, features=features)
    assert file.read_bytes() == whole
    if isinstance(features, list) and len(str(features)) < 100:
        forge(file, features=json.dumps(features))
        with pytest.raises(
            CheckpointError, match=words if error is ValueError else "must describe a network"
        ):
            gpubp.load(file)


# what was saved, as an object


def test_saved_unpacks_pickles_and_shows_itself_without_its_weights(file: Path) -> None:
    saved = gpubp.load(file)
    net, w, scaler, labels = saved
    assert (net, labels) == (saved.net, saved.labels)
    assert w is saved.w
    assert scaler is saved.scaler
    copied = pickle.loads(pickle.dumps(saved))
    assert same(copied)
    assert copied.features is None
    assert repr(saved) == f"<saved {NET!r}, w of 26 float32 weights, scaler, labels=('café', 7)>"
    long = Saved(NET, W, labels=None, features=tuple("abcdefgh"))
    assert repr(long) == f"<saved {NET!r}, w of 26 float32 weights, features=('a', 'b', 'c', ..., 'h')>"
    with pytest.raises(AttributeError):
        saved.w = W  # type: ignore[misc]


@without_jax
def test_saved_predicts_from_raw_rows(tmp_path: Path, place: Place) -> None:
    scaler = Standardizer(*(part.astype(place.dtype) for part in (SCALER.mean, SCALER.scale)))
    gpubp.save(tmp_path / "a", NET, W, scaler=scaler, labels=LABELS)
    x = np.arange(12.0).reshape(4, 3)
    there = gpubp.load(tmp_path / "a", device=device_of(place.array(x)))
    q = NET.predict(W.astype(float), (x - SCALER.mean) / SCALER.scale)
    found = there.predict(place.array(x))
    assert np.allclose(place.host(found), q, atol=1e-5)
    assert list(there.classes(place.array(x))) == [LABELS[k] for k in q.argmax(axis=1)]
    if place.name != "numpy":
        with pytest.raises(TypeError, match=r"X must be an array of .* like w, got one of numpy"):
            there.predict(x)


def test_classes_with_and_without_labels() -> None:
    x = np.linspace(-1, 1, 5)[:, None]
    one = Network((1, 1), cost="binary_cross_entropy")
    w = np.array([1.0, 0.0])
    assert Saved(one, w, labels=("no", "yes")).classes(x).tolist() == ["no", "no", "no", "yes", "yes"]
    assert Saved(one, w, labels=("no", "yes")).classes(x.astype(">f4")).tolist()[-1] == "yes"
    two = Network((1, 2), cost="cross_entropy")
    assert Saved(two, np.array([-1.0, 1.0, 0.0, 0.0])).classes(x).tolist() == [0, 0, 0, 1, 1]
    assert Saved(one, w).predict(x.round().astype(int)).dtype == np.float64
    for saved in (Saved(one, w), Saved(Network((1, 1)), w, labels=("price",)), Saved(Network((1, 1)), w)):
        with pytest.raises(
            ValueError, match=r"classes needs softmax outputs, or one output and two labels, got Net"
        ):
            saved.classes(x)


# what can't be computed with


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1.8e19), ("float64", 1.3e154)])
@pytest.mark.parametrize("sign", [1, -1])
def test_weights_too_large_to_be_used(file: Path, dtype: str, most: float, sign: int) -> None:
    w = W.astype(dtype)
    w[-1] = sign * most
    gpubp.save(file, NET, w)
    assert same(gpubp.load(file), w=w, scaler=None, labels=None)
    words = rf"b1 must hold weights of at most {most:.1e}, the square root of {dtype}'s largest number, got ".replace(
        "+", r"\+"
    )
    for large in (1.1 * most, float(np.finfo(dtype).max)):
        w[-1] = sign * large
        whole = file.read_bytes()
        with pytest.raises(ValueError, match=words):
            gpubp.save(file, NET, w)
        assert file.read_bytes() == whole
        forge(file, {"b1": w[-2:]})
        with pytest.raises(CheckpointError, match=words):
            gpubp.load(file)
        file.write_bytes(whole)


def test_the_order_of_bytes_makes_no_difference(file: Path) -> None:
    scaler = Standardizer(SCALER.mean.astype(">f8"), SCALER.scale.astype(">f8"))
    gpubp.save(file, NET, W.astype(">f4"), scaler=scaler, labels=LABELS)
    assert same(gpubp.load(file))


# headers made to mislead


def with_header(whole: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    length = int.from_bytes(whole[:8], "little")
    text = json.loads(whole[8 : 8 + length])
    change(text)
    return header(json.dumps(text).encode()) + whole[8 + length :]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text["W0"].update(data_offsets=[0, 10**15]),
        lambda text: text["W0"].update(shape=[4, 3 * 10**12]),
        lambda text: text["W0"].update(shape=[-4, -3]),
        lambda text: text["W0"].update(shape=[4.0, 3]),
        lambda text: text["W0"].update(shape=12),
        lambda text: text["W0"].update(dtype=5),
        lambda text: text["W0"].update(dtype=["F32"]),
        lambda text: text["W0"].update(data_offsets=text["W1"]["data_offsets"]),
        lambda text: text["W0"].update(data_offsets=[0]),
        lambda text: text["W0"].update(data_offsets="ab"),
        lambda text: text["W0"].pop("dtype"),
        lambda text: text.update(W0=None),
        lambda text: text.update(W0=[]),
        lambda text: text["__metadata__"].update(version=1),
        lambda text: text["__metadata__"].update(labels=["a", "b"]),
    ],
)
def test_headers_made_to_mislead(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file.write_bytes(with_header(file.read_bytes(), change))
    with pytest.raises(CheckpointError, match=r"model\.gpubp must be a|W0 must be float32 or .*got 5"):
        gpubp.load(file)
