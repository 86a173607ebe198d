"""Saving and loading: one safetensors file that other tools can read too, and that nothing is executed from."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpubp import activations as _activations
from gpubp import costs as _costs
from gpubp._data import Standardizer
from gpubp._devices import Device, to_numpy
from gpubp._devices import device as named_device
from gpubp._network import Network
from gpubp._per_node import PerNode, per_node
from gpubp._typing import Array
from gpubp.activations import Activation
from gpubp.costs import Cost

__all__ = ["CheckpointError", "Saved", "load", "save"]

_FORMAT, _VERSION = "gpubp", 1
_HEADER_LIMIT = 2**20  # bytes; a header is a few hundred, and labels


class CheckpointError(ValueError):
    """A model file that can't be trusted or read."""


class Saved(NamedTuple):
    """What a model file holds; ``scaler`` and ``labels`` are None where none were saved."""

    net: Network
    w: Array
    scaler: Standardizer | None
    labels: tuple[Any, ...] | None


def save(
    path: str | os.PathLike[str],
    net: Network,
    w: Array,
    *,
    scaler: Standardizer | None = None,
    labels: Sequence[Any] | None = None,
) -> None:
    """Write a network, its weights w (n_weights,), the scaler of its inputs and its classes' names to one file.

    The file is there whole or not at all: it is written beside ``path``, flushed to disk, and put in its place.

    Raises
    ------
    ValueError : w or the scaler of another shape than the network's or not finite; as many labels as outputs are
        needed (two for one output)
    TypeError : a label that is neither text nor a number
    OSError : the file can't be written
    """
    from safetensors.numpy import save as to_bytes

    for name, value, kind in (("net", net, Network), ("scaler", scaler, Standardizer)):
        if not isinstance(value, kind) and (name, value) != ("scaler", None):
            raise TypeError(f"{name} must be a gpubp.{kind.__name__}, got {type(value).__name__}: make one")
    names = _plain_labels(labels)
    tensors = {}
    for i, (W, b) in enumerate(net.layers(w)):
        tensors[f"W{i}"] = W
        if b is not None:
            tensors[f"b{i}"] = b
    if scaler is not None:
        tensors["scaler.mean"], tensors["scaler.scale"] = scaler.mean, scaler.scale
    # safetensors writes memory as it lies, so it must lie in order.
    arrays = {name: np.ascontiguousarray(to_numpy(array)) for name, array in tensors.items()}
    about = {
        "format": _FORMAT,
        "version": str(_VERSION),
        "network": json.dumps(_described(net)),
        "labels": json.dumps(names),
    }
    _check_parts(net, arrays, names, ValueError)
    about["sha256"] = _digest(about, arrays)
    data = to_bytes(arrays, about)
    if int.from_bytes(data[:8], "little") > _HEADER_LIMIT:
        raise ValueError(
            f"labels must fit the file's header of {_HEADER_LIMIT} bytes, got longer ones: shorten them"
        )
    _write(Path(os.path.realpath(path)), data)


def load(
    path: str | os.PathLike[str],
    *,
    device: str | Device = "cpu",
    activations: Sequence[Activation] = (),
    costs: Sequence[Cost] = (),
) -> Saved:
    """Read what ``save`` wrote; weights and scaler go to ``device``.

    ``activations`` and ``costs`` give the user-made parts that the file names.

    Raises
    ------
    CheckpointError : the file is truncated, changed, not gpubp's, of a later version, or needs a part not given
    ValueError, TypeError : a part given that isn't one, or has a built-in's name
    OSError : the file can't be read
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    own = _by_name(activations, Activation, "activations"), _by_name(costs, Cost, "costs")
    data = Path(path).read_bytes()
    about = _metadata(data, path)
    try:
        arrays = from_bytes(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} must be a whole model file, got one that can't be read: {error}"
        ) from None
    if about.get("sha256") != _digest(about, arrays):
        raise CheckpointError(
            f"{path} must match its SHA-256, got other contents: it was changed, get it anew"
        )
    try:
        net = _network(json.loads(about["network"]), *own)
        labels = _plain_labels(json.loads(about["labels"]))
    except (KeyError, TypeError, AttributeError, RecursionError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path} must describe a network, got one that can't be read: {error!r}"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path} must describe a network, and {error}") from None
    _check_parts(net, arrays, labels, CheckpointError)
    target = device if isinstance(device, Device) else named_device(device)
    depth = len(net.sizes) - 1
    w = net.flatten([(arrays[f"W{i}"], arrays[f"b{i}"] if net.bias else None) for i in range(depth)])
    scaler = None
    if "scaler.mean" in arrays:
        scaler = Standardizer(arrays["scaler.mean"], arrays["scaler.scale"]).put(target)
    return Saved(net, target.put(w), scaler, None if labels is None else tuple(labels))


def _metadata(data: bytes, path: object) -> dict[str, str]:
    """The file's own description, from its header (eight bytes of length, then JSON)."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_HEADER_LIMIT, len(data) - 8):
        raise CheckpointError(
            f"{path} must be a whole gpubp model file, got one that is cut off or another kind"
        )
    try:
        about = json.loads(data[8 : 8 + length])["__metadata__"]
        ours = about["format"] == _FORMAT
    except (KeyError, TypeError, ValueError, RecursionError):
        ours = False
    if not ours:
        raise CheckpointError(
            f"{path} must be a gpubp model file, got another kind: make one with gpubp.save"
        )
    if about.get("version") != str(_VERSION):
        raise CheckpointError(
            f"{path} must have format version {_VERSION}, got {about.get('version')}: use the gpubp that wrote it"
        )
    return dict(about)


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


def _check_parts(
    net: Network, arrays: Mapping[str, Any], labels: list[Any] | None, refusal: type[ValueError]
) -> None:
    """Names, shapes, dtypes and values, as the network needs them."""
    shapes = dict(zip(_names(net), net.layout.shapes, strict=True))
    scaler = {"scaler.mean", "scaler.scale"}
    if set(arrays) not in (set(shapes), set(shapes) | scaler):
        raise refusal(f"a model needs the arrays {', '.join(shapes)}, got {', '.join(sorted(arrays))}")
    kinds = {array.dtype for name, array in arrays.items() if name in shapes}
    for name, array in arrays.items():
        wanted = shapes.get(name, net.sizes[:1])
        if array.shape != wanted:
            raise refusal(
                f"{name} must have shape {wanted}, got {array.shape}: it belongs to another network"
            )
        if array.dtype not in (np.float32, np.float64) or len(kinds) > 1:
            raise refusal(
                f"{name} must be float32 or float64 like every weight, got {array.dtype}: convert it"
            )
        if not np.isfinite(array).all():
            raise refusal(f"{name} must be finite, got a NaN or inf: train again with a lower learning rate")
        if name == "scaler.scale" and not (array > 0).all():
            raise refusal(f"{name} must be above 0, got 0 or less: fit the scaler anew")
    n_L = net.sizes[-1]
    if labels is not None and len(labels) not in ({n_L} if n_L > 1 else {1, 2}):
        raise refusal(
            f"labels must name the {n_L} outputs, got {len(labels)} names: give one each (two for one output)"
        )


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


def _digest(about: Mapping[str, str], arrays: Mapping[str, Any]) -> str:
    """SHA-256 of everything in the file but itself."""
    seal = hashlib.sha256()
    for key in sorted(set(about) - {"sha256"}):
        seal.update(f"{key}={about[key]}\n".encode())
    for name in sorted(arrays):
        array = arrays[name]
        seal.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        seal.update(array.tobytes())
    return seal.hexdigest()


def _write(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    file = beside.open("xb")
    try:
        with file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
