"""gpubp: feedforward networks by explicit backpropagation, on any array library, on CPU or GPU.

A network is a value, ``net = Network(sizes, ...)``; its weights are one flat array ``w``. ``net.backward(w, x, y)``
gives the forward chains p, q and the backward chains Delta of a batch as plain arrays; ``train`` runs the loop.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from gpubp import activations, costs, initializers, optimizers, schedules
from gpubp._devices import Device, device, devices
from gpubp._network import Network
from gpubp._per_node import per_node
from gpubp.activations import Activation
from gpubp.backprop import Chains, ForwardChains
from gpubp.costs import Cost
from gpubp.optimizers import SGD, Adam, AdamW, Momentum, Nesterov, RMSprop

if TYPE_CHECKING:
    from gpubp import callbacks, matrix_calculus, plots
    from gpubp._checkpoint import CheckpointError, Saved, load, save
    from gpubp._datasets import Standardizer, load_digits
    from gpubp._explain.explanation import Explanation, explain
    from gpubp._verify import Report, check_gradient
    from gpubp.training.entry import DivergenceError, Run, train

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "Chains",
    "CheckpointError",
    "Cost",
    "Device",
    "DivergenceError",
    "Explanation",
    "ForwardChains",
    "Momentum",
    "Nesterov",
    "Network",
    "RMSprop",
    "Report",
    "Run",
    "Saved",
    "Standardizer",
    "activations",
    "callbacks",
    "check_gradient",
    "costs",
    "device",
    "devices",
    "explain",
    "initializers",
    "load",
    "load_digits",
    "matrix_calculus",
    "optimizers",
    "per_node",
    "plots",
    "save",
    "schedules",
    "train",
]

_LAZY = {
    "callbacks": "gpubp.callbacks",
    "matrix_calculus": "gpubp.matrix_calculus",
    "plots": "gpubp.plots",
    "CheckpointError": "gpubp._checkpoint",
    "Saved": "gpubp._checkpoint",
    "load": "gpubp._checkpoint",
    "save": "gpubp._checkpoint",
    "Standardizer": "gpubp._datasets",
    "load_digits": "gpubp._datasets",
    "Explanation": "gpubp._explain.explanation",
    "explain": "gpubp._explain.explanation",
    "DivergenceError": "gpubp.training.entry",
    "Run": "gpubp.training.entry",
    "train": "gpubp.training.entry",
    "Report": "gpubp._verify",
    "check_gradient": "gpubp._verify",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'gpubp' has no attribute {name!r}")
    module = import_module(_LAZY[name])
    value = module if module.__name__ == f"gpubp.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
