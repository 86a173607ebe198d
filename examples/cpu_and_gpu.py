"""One script for CPU, GPU and other array libraries: only where the arrays are to live is said.

`device=` names where to train; arrays of another library stay with it, and so do the weights. The first weights and the
order of the rows are drawn from the seed alone, so every run takes the same steps, up to rounding. A network as small
as this one keeps no GPU busy: the seconds say that it works there, not how fast a large one is.

Prints device, seconds, accuracy, and how far each run's weights are from the CPU's; and why there is no GPU, if so.
"""

import importlib
import importlib.util
from typing import Any

import numpy as np

import gpubp

x, labels = gpubp.load_digits()
x = gpubp.Standardizer.fit(x).apply(x)
net = gpubp.Network((64, 100, 10), cost="cross_entropy")


def train_on(device: str | gpubp.Device, x: Any, labels: Any) -> gpubp.Run:
    """The same training everywhere."""
    optimizer = gpubp.Momentum(learning_rate=0.05)
    return gpubp.train(net, x, labels, device=device, optimizer=optimizer, epochs=5, progress=False)


# Every device of this machine; the CPU comes first.
runs = [train_on(device, x, labels) for device in gpubp.devices()]
if len(runs) == 1:
    try:
        gpubp.device("cuda")
    except RuntimeError as refusal:
        print(f"This machine trains on its CPU alone: {refusal}")

# The same on arrays of another library, the first of these that is installed.
for name in ("torch", "jax", "array_api_strict"):
    if importlib.util.find_spec(name) is not None:
        xp = importlib.import_module("jax.numpy" if name == "jax" else name)
        runs.append(train_on("auto", xp.asarray(x), xp.asarray(labels)))
        break
else:
    print("No other array library here: install torch, jax or array-api-strict to see one train.")

print(f"{'device':40} seconds  accuracy  weights apart")
cpu = gpubp.device("cpu")
for run in runs:
    seconds = sum(run.history["seconds"])
    accuracy = run.history["metric"][-1]
    apart = np.max(np.abs(cpu.put(run.w) - runs[0].w))
    print(f"{run.device.description:40} {seconds:7.2f} {accuracy:9.1%} {apart:14.0e}")
    if apart > 1e-3:
        raise SystemExit(f"the weights trained on {run.device.name} are not those of the CPU")
