"""An activation and a cost of one's own: formulas that gpubp doesn't have, checked and used like its own.

Each is a value and a derivative in functions of the Array API standard, which the namespace `xp` provides. gpubp
compares the two by differences when the object is made, so a slip shows at once.

Prints a refusal, a gradient check, how near to a wave two costs come, and the network loaded (wave.safetensors).
"""

import math

import numpy as np

import gpubp

sine = gpubp.Activation(lambda xp, p: xp.sin(p), lambda xp, p, q: xp.cos(p), name="sine")
# c = sum_k log cosh(q_k - y_k): like the squared error near 0 and like the absolute error far out, where outliers are.
# logaddexp(e, -e) is log(2 cosh e) without overflow. One number an example; the mean over the batch is the library's.
log_cosh = gpubp.Cost(
    lambda xp, q, y: xp.sum(xp.logaddexp(q - y, y - q) - math.log(2.0), axis=1),
    lambda xp, q, y: xp.tanh(q - y),
    name="log_cosh",
)
try:
    gpubp.Activation(lambda xp, p: xp.sin(p), lambda xp, p, q: -xp.cos(p), name="slip")
except ValueError as refusal:
    print(f"refused: {refusal}")
else:
    raise SystemExit("an activation with a wrong derivative was not refused")

rng = np.random.default_rng(0)
x = rng.uniform(-1.0, 1.0, (400, 1))
wave = np.sin(6.0 * x)
y = wave + 0.05 * rng.standard_normal(x.shape)
y[::20] += 5.0
net = gpubp.Network((1, 32, 1), hidden=sine, cost=log_cosh)
# First weights as large as this give the sines frequencies like the wave's.
w = net.init(dtype="float64", weights=["normal(scale=4.0)", "glorot_normal"])
report = gpubp.check_gradient(net, w, x, y)
print(report)


def train(net: gpubp.Network) -> gpubp.Run:
    """The run of either network."""
    adam = gpubp.Adam(learning_rate=0.003)
    return gpubp.train(net, x, y, w=w, optimizer=adam, epochs=200, device="cpu", progress=False)


runs = [train(gpubp.Network((1, 32, 1), hidden=sine)), train(net)]
off_squared, off = (np.sqrt(np.mean((run.predict(x) - wave) ** 2)) for run in runs)
print(f"squared_error comes within {off_squared:.2f} of the wave, log_cosh within {off:.2f}")

# A file holds names, never code: give your own parts again when loading.
gpubp.save("wave.safetensors", net, runs[1].w)
model = gpubp.load("wave.safetensors", activations=[sine], costs=[log_cosh])
print(f"loaded wave.safetensors: {model.net}")

if off > off_squared / 2:
    raise SystemExit("the own cost should come much nearer to the wave than squared error")
if not (report.passed and np.array_equal(model.net.predict(model.w, x), runs[1].predict(x))):
    raise SystemExit("the gradient is wrong, or the loaded network does not predict what the trained one did")
