"""Saving and loading: one safetensors file that other tools can read too, and that nothing is executed from."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from typing import Any, NamedTuple

import numpy as np

from gpubp import activations as _activations
from gpubp import costs as _costs
from gpubp._datasets import Standardizer
from gpubp._devices import Device, at, check_alike, to_numpy
from gpubp._devices import device as named_device
from gpubp._files import open_regular, write
from gpubp._network import Network
from gpubp._numerics import largest_to_square, native
from gpubp._per_node import PerNode, per_node
from gpubp._typing import Array
from gpubp.activations import Activation
from gpubp.costs import Cost
from gpubp.engines import engine_for

__all__ = ["CheckpointError", "Saved", "load", "save"]

_FORMAT, _VERSION = "gpubp", 1
_HEADER_LIMIT = 2**20  # bytes; a header is a few hundred, and names
_DTYPES = {kind: np.dtype(f"<f{size}") for kind, size in {"F16": 2, "F32": 4, "F64": 8}.items()}


class CheckpointError(ValueError):
    """A model file that can't be trusted or read."""


@dataclass(frozen=True, eq=False)
class Saved:
    """What a model file holds; it unpacks as ``net, w, scaler, labels``.

    Attributes
    ----------
    net : the network
    w : its weights (n_weights,)
    scaler : of its inputs, or None
    labels : names of its outputs or classes, or None
    features : names of its n_0 inputs, or None
    """

    net: Network
    w: Array
    scaler: Standardizer | None = None
    labels: tuple[Any, ...] | None = None
    features: tuple[str, ...] | None = None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.net, self.w, self.scaler, self.labels))

    def __repr__(self) -> str:
        more = {"labels": self.labels, "features": self.features}
        parts = [f"{self.net!r}", f"w of {self.net.n_weights} {self.w.dtype} weights"]
        parts += ["scaler"] * (self.scaler is not None)
        parts += [f"{name}={_shortened(names)}" for name, names in more.items() if names is not None]
        return f"<saved {', '.join(parts)}>"

    @property
    def chooses(self) -> bool:
        """Whether it chooses one of several classes: by softmax, or by one output with two labels."""
        two = self.net.sizes[-1] == 1 and self.labels is not None and len(self.labels) == 2
        return two or self.net.sigma[-1].name == "softmax"

    def predict(self, X: Array) -> Array:
        """q_L (B, n_L) of X (B, n_0), which the scaler is applied to, if there is one; X is an array of w's library and
        on its device, of real numbers.

        Raises
        ------
        ValueError, TypeError, RuntimeError : another shape, library or device
        """
        X, engine = native(X), engine_for(self.w)
        check_alike("X", X, self.w, engine, dtype=False)
        with at(self.w):
            if self.scaler is not None:
                X = self.scaler.apply(engine.xp.astype(X, self.scaler.mean.dtype))
            return self.net.predict(self.w, engine.xp.astype(X, self.w.dtype))

    def classes(self, X: Array) -> Any:
        """Each row's class (B,), NumPy: its label, or its number where no labels were saved; X as for ``predict``.

        Raises
        ------
        ValueError : the outputs are no classes; else as ``predict``
        """
        if not self.chooses:
            raise ValueError(
                f"classes needs softmax outputs, or one output and two labels, got {self.net!r}: use predict"
            )
        q = to_numpy(self.predict(X))
        chosen = q.argmax(axis=1) if q.shape[1] > 1 else (q[:, 0] > 0.5).astype(np.int64)
        if self.labels is None:
            return chosen
        names = np.empty(len(self.labels), object)
        names[:] = self.labels
        return (names if len(set(map(type, self.labels))) > 1 else np.array(self.labels))[chosen]


def _shortened(names: tuple[Any, ...]) -> str:
    return repr(names) if len(names) <= 6 else f"({', '.join(map(repr, names[:3]))}, ..., {names[-1]!r})"


def save(
    path: str | os.PathLike[str],
    net: Network,
    w: Array,
    *,
    scaler: Standardizer | None = None,
    labels: Sequence[Any] | None = None,
    features: Sequence[str] | None = None,
) -> None:
    """Write a network, its weights w (n_weights,), the scaler of its inputs, and the names of its classes and of its
    n_0 inputs to one file.

    The file is there whole or not at all: it is written beside ``path``, flushed to disk, and put in its place, with
    the mode and owner of a file that was there. What a killed save left beside it is removed. Links are followed, and
    a FIFO or device is written to as by ``open``.

    Raises
    ------
    ValueError : w or the scaler of another shape than the network's or not finite; a weight above the square root of
        its dtype's largest number, 1.8e19 in float32 and 1.3e154 in float64, with which costs would overflow; as many
        labels as outputs are needed (two for one output), and n_0 features, all different and none empty
    TypeError : a label that is neither text nor a number, or a feature that isn't text
    OSError : the file can't be written
    """
    from safetensors.numpy import save as to_bytes

    for name, value, kind in (("net", net, Network), ("scaler", scaler, Standardizer)):
        if not isinstance(value, kind) and (name, value) != ("scaler", None):
            raise TypeError(f"{name} must be a gpubp.{kind.__name__}, got {type(value).__name__}: make one")
    names, columns = _plain_labels(labels), _plain_features(features)
    tensors = {}
    for i, (W, b) in enumerate(net.layers(w)):
        tensors[f"W{i}"] = W
        if b is not None:
            tensors[f"b{i}"] = b
    if scaler is not None:
        tensors["scaler.mean"], tensors["scaler.scale"] = scaler.mean, scaler.scale
    # safetensors writes memory as it lies, so it must lie in order.
    arrays = {name: np.ascontiguousarray(native(to_numpy(array))) for name, array in tensors.items()}
    about = {
        "format": _FORMAT,
        "version": str(_VERSION),
        "network": json.dumps(_described(net)),
        "labels": json.dumps(names),
    }
    if columns is not None:  # left out, so that a file without them is the same as ever
        about["features"] = json.dumps(columns)
    _check_kinds(net, arrays, ValueError)
    _check_values(arrays, ValueError)
    _check_names(net, names, columns, ValueError)
    about["sha256"] = _digest(about, arrays)
    data = to_bytes(arrays, about)
    if int.from_bytes(data[:8], "little") > _HEADER_LIMIT:
        which = "features" if len(about.get("features", "")) > len(about["labels"]) else "labels"
        raise ValueError(
            f"{which} must fit the file's header of {_HEADER_LIMIT} bytes, got longer ones: shorten them"
        )
    write(path, data)


def load(
    path: str | os.PathLike[str],
    *,
    device: str | Device = "cpu",
    activations: Sequence[Activation] = (),
    costs: Sequence[Cost] = (),
) -> Saved:
    """Read what ``save`` wrote; weights and scaler go to ``device``.

    The header is read and checked first, against the network that it describes and the size of the file; then each
    array is read into its place. That takes no more memory than w and the scaler.

    ``activations`` and ``costs`` give the user-made parts that the file names.

    Raises
    ------
    CheckpointError : no regular file; or one that is truncated, changed, not gpubp's, of a later version, with weights
        that ``save`` refuses, or in need of a part not given
    ValueError, TypeError : a part given that isn't one, or has a built-in's name
    OSError : the file can't be read
    """
    own = _by_name(activations, Activation, "activations"), _by_name(costs, Cost, "costs")
    with open_regular(path, CheckpointError) as file:
        about, declared = _header(file, path)
        try:
            net = _network(json.loads(about["network"]), *own)
            labels = _plain_labels(json.loads(about["labels"]))
            features = _plain_features(json.loads(about.get("features", "null")))
        except (KeyError, TypeError, AttributeError, RecursionError, json.JSONDecodeError) as error:
            raise CheckpointError(
                f"{path} must describe a network, got one that can't be read: {error!r}"
            ) from None
        except ValueError as error:
            raise CheckpointError(f"{path} must describe a network, and {error}") from None
        _check_kinds(net, declared, CheckpointError)
        _check_names(net, labels, features, CheckpointError)
        w = np.empty(net.n_weights, declared["W0"].dtype)
        arrays = dict(zip(_names(net), [*net.layout.views(w)[0], *net.layout.views(w)[1]], strict=False))
        for name in declared.keys() - arrays.keys():
            arrays[name] = np.empty(declared[name].shape, declared[name].dtype)
        for name in declared:
            if file.readinto(_bytes(arrays[name])) != arrays[name].nbytes:  # it was cut meanwhile
                raise CheckpointError(f"{path} must be a whole model file, got one that is cut off")
    if about.get("sha256") != _digest(about, arrays):
        raise CheckpointError(
            f"{path} must match its SHA-256, got other contents: it was changed, get it anew"
        )
    _check_values(arrays, CheckpointError)
    target = device if isinstance(device, Device) else named_device(device)
    scaler = None
    if "scaler.mean" in arrays:
        scaler = Standardizer(native(arrays["scaler.mean"]), native(arrays["scaler.scale"])).put(target)
    names = None if labels is None else tuple(labels), None if features is None else tuple(features)
    return Saved(net, target.put(native(w)), scaler, *names)


class _Declared(NamedTuple):
    """What a header says of an array; ``dtype`` is the file's word for one that NumPy or we don't take."""

    dtype: Any
    shape: tuple[int, ...]


def _header(file: BufferedReader, path: object) -> tuple[dict[str, str], dict[str, _Declared]]:
    """The file's own description, and its arrays in their order: eight bytes of length, then JSON."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(_HEADER_LIMIT, size - 8):
        raise CheckpointError(
            f"{path} must be a whole gpubp model file, got one that is cut off or another kind"
        )
    try:
        header = json.loads(file.read(length))
        about = header.pop("__metadata__")
        ours = about["format"] == _FORMAT and all(isinstance(value, str) for value in about.values())
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        ours = False
    if not ours:
        raise CheckpointError(
            f"{path} must be a gpubp model file, got another kind: make one with gpubp.save"
        )
    if about.get("version") != str(_VERSION):
        raise CheckpointError(
            f"{path} must have format version {_VERSION}, got {about.get('version')}: use the gpubp that wrote it"
        )
    try:
        return about, _declared(header, size - 8 - length)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{path} must be a whole model file, got one that can't be read: {error}"
        ) from None


def _declared(header: dict[str, Any], size: int) -> dict[str, _Declared]:
    """The arrays, if they fill the ``size`` bytes after the header one after the other."""
    found, end = {}, 0
    for name, about in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        kind, shape, (first, last) = about["dtype"], about["shape"], about["data_offsets"]
        dtype = _DTYPES.get(kind, kind)
        if not all(type(n) is int and n >= 0 for n in (*shape, first, last)) or first != end or last < first:
            raise ValueError(f"the place of {name}")
        if isinstance(dtype, np.dtype) and last - first != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"the size of {name}")
        found[name], end = _Declared(dtype, tuple(shape)), last
    if end != size:
        raise ValueError(f"{end} bytes of arrays, {size} in the file")
    return found


def _described(net: Network) -> dict[str, Any]:
    _by_name(net.sigma, Activation, "activations")
    _by_name([net.cost_function], Cost, "costs")
    return {
        "sizes": net.sizes,
        "input": _spelled(net.sigma[0]),
        "hidden": [_spelled(sigma) for sigma in net.sigma[1:-1]],
        "output": _spelled(net.sigma[-1]),
        "cost": net.cost_function.name,
        "bias": net.bias,
    }


def _spelled(sigma: Activation) -> str | list[str]:
    return [part.name for part in sigma.parts] if isinstance(sigma, PerNode) else sigma.name


def _by_name(parts: Sequence[Any], kind: type[Activation | Cost], argument: str) -> dict[str, Any]:
    """The user-made ones among them; refuses names that stand for something else already."""
    known: Any = _activations if kind is Activation else _costs
    own: dict[str, Any] = {}
    singles = [one for part in parts for one in (part.parts if isinstance(part, PerNode) else [part])]
    for part in singles:
        if not isinstance(part, kind):
            raise TypeError(
                f"{argument} must hold gpubp.{kind.__name__} objects, got {type(part).__name__}: make it one"
            )
        taken = part.name.partition("(")[0].strip().lower() in known.names()
        if taken and _is_built_in(part, known):
            continue
        if taken or own.get(part.name, part) != part:
            raise ValueError(f"a part of your own must have a name of its own, got {part.name!r}: rename it")
        own[part.name] = part
    return own


def _is_built_in(part: Any, known: Any) -> bool:
    try:
        return bool(known.get(part.name) == part)
    except ValueError:
        return False


def _network(described: dict[str, Any], sigma: dict[str, Activation], cost: dict[str, Cost]) -> Network:
    def given(name: str | list[str]) -> Activation:
        if isinstance(name, list):  # one for each node
            return per_node(map(given, name))
        if name not in sigma and name.partition("(")[0] not in _activations.names():
            raise ValueError(_missing("activation", name))
        return sigma.get(name) or _activations.get(name)

    if not isinstance(described["bias"], bool):
        raise TypeError("bias")
    if described["cost"] not in cost and described["cost"].partition("(")[0] not in _costs.names():
        raise ValueError(_missing("cost", described["cost"]))
    return Network(
        described["sizes"],
        hidden=[given(name) for name in described["hidden"]],
        output=given(described["output"]),
        input=given(described["input"]),
        cost=cost.get(described["cost"], described["cost"]),
        bias=described["bias"],
    )


def _missing(kind: str, name: str) -> str:
    return f"the {kind} {name!r} isn't built in: pass your own, gpubp.load(path, {kind}s=[...])"


def _check_names(
    net: Network, labels: list[Any] | None, features: list[str] | None, refusal: type[ValueError]
) -> None:
    n_0, n_L = net.sizes[0], net.sizes[-1]
    if labels is not None and len(labels) not in ({n_L} if n_L > 1 else {1, 2}):
        raise refusal(
            f"labels must name the {n_L} outputs, got {len(labels)} names: give one each (two for one output)"
        )
    if features is not None and (len(features) != n_0 or len(set(features)) < n_0 or "" in features):
        came = f"{len(features)} names, {len(set(features))} of them different"
        came += ", and an empty one" if "" in features else ""
        raise refusal(f"features must name the n_0 = {n_0} inputs, got {came}: give each a name of its own")


def _check_kinds(net: Network, arrays: Mapping[str, Any], refusal: type[ValueError]) -> None:
    """Names, shapes and dtypes, as the network needs them."""
    shapes = dict(zip(_names(net), net.layout.shapes, strict=True))
    scaler = {"scaler.mean", "scaler.scale"}
    if set(arrays) not in (set(shapes), set(shapes) | scaler):
        raise refusal(f"a model needs the arrays {', '.join(shapes)}, got {', '.join(sorted(arrays))}")
    kinds = _DTYPES["F32"], _DTYPES["F64"]
    for name, array in arrays.items():
        wanted = shapes.get(name, net.sizes[:1])
        if array.shape != wanted:
            raise refusal(
                f"{name} must have shape {wanted}, got {array.shape}: it belongs to another network"
            )
        if array.dtype not in kinds or (name in shapes and array.dtype != arrays["W0"].dtype):
            raise refusal(
                f"{name} must be float32 or float64 like every weight, got {array.dtype}: convert it"
            )


def _check_values(arrays: Mapping[str, Any], refusal: type[ValueError]) -> None:
    """Finite, and of a size that can be computed with; by ``min`` and ``max``, which take no memory."""
    for name, array in arrays.items():
        low, high = float(array.min()), float(array.max())
        most = largest_to_square(array.dtype)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise refusal(f"{name} must be finite, got a NaN or inf: train again with a lower learning rate")
        if max(-low, high) > most and not name.startswith("scaler."):
            raise refusal(
                f"{name} must hold weights of at most {most:.1e}, the square root of {array.dtype}'s largest number, "
                f"got {max(-low, high):.1e}: train again with a lower learning rate"
            )
        if name == "scaler.scale" and low <= 0:
            raise refusal(f"{name} must be above 0, got 0 or less: fit the scaler anew")


def _names(net: Network) -> list[str]:
    depth = len(net.sizes) - 1
    return [f"W{i}" for i in range(depth)] + ([f"b{i}" for i in range(depth)] if net.bias else [])


def _plain_labels(labels: Any) -> list[Any] | None:
    if labels is None:
        return None
    if isinstance(labels, str | bytes | Mapping) or not hasattr(labels, "__iter__"):
        raise TypeError(
            f"labels must be a sequence of names, got {type(labels).__name__}: put them in a list"
        )
    plain = [label.item() if hasattr(label, "item") else label for label in labels]
    for label in plain:
        if not isinstance(label, str | int | float | bool):
            raise TypeError(
                f"labels must be text or numbers, got {type(label).__name__}: convert them with str"
            )
    return plain


def _plain_features(features: Any) -> list[str] | None:
    if features is None:
        return None
    if isinstance(features, str | bytes | Mapping) or not hasattr(features, "__iter__"):
        raise TypeError(
            f"features must be a sequence of names, got {type(features).__name__}: put them in a list"
        )
    given = list(features)
    for name in given:
        if not isinstance(name, str):
            raise TypeError(f"features must be text, got {type(name).__name__}: convert them with str")
    return [str(name) for name in given]


def _digest(about: Mapping[str, str], arrays: Mapping[str, Any]) -> str:
    """SHA-256 of everything in the file but itself."""
    seal = hashlib.sha256()
    for key in sorted(set(about) - {"sha256"}):
        seal.update(f"{key}={about[key]}\n".encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        seal.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        seal.update(_bytes(array))
    return seal.hexdigest()


def _bytes(array: Any) -> Any:
    """The memory of an array whose elements follow each other."""
    return array.reshape(-1).view(np.uint8)
