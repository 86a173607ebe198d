"""A smooth curve through noisy points, and a picture of it.

A network with two hidden tanh layers is fitted by squared error to 300 points that scatter around a known curve. A
fifth of them is held out to see that the noise isn't learned with the curve.
Run it as `python regression.py [FILE]`; FILE is regression.png in the current folder unless given.

Prints how far the fit is from the curve, and where the figure was saved.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

import gpubp

path = sys.argv[1] if len(sys.argv) > 1 else "regression.png"
noise = 0.1


def curve(x: np.ndarray) -> np.ndarray:
    """The truth that the network is to find."""
    return np.sin(2.0 * x) * np.exp(-0.3 * x)


rng = np.random.default_rng(0)
x = rng.uniform(0.0, 6.0, (300, 1))
y = curve(x) + noise * rng.standard_normal((300, 1))

scaler = gpubp.Standardizer.fit(x)
net = gpubp.Network((1, 32, 32, 1), hidden="tanh", cost="squared_error")
# 240 rows make 8 batches of 30, so 400 epochs are 3,200 steps; the learning rate goes down to 0 over all of them.
optimizer = gpubp.Adam(learning_rate=gpubp.schedules.Cosine(0.01, steps=3200))
run = gpubp.train(
    net, scaler.apply(x), y, optimizer=optimizer, epochs=400, batch_size=30, validation=0.2, progress=False
)

grid = np.linspace(0.0, 6.0, 400)[:, None]
fit = run.predict(scaler.apply(grid))
distance = float(np.sqrt(np.mean((fit - curve(grid)) ** 2)))
print(f"the fit is {distance:.3f} from the curve (root mean square), under a noise of {noise}")

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=(3, 2), layout="constrained")
left.scatter(x, y, s=12, color="0.65", linewidths=0, label="data")
left.plot(grid, fit, color="tab:blue", linewidth=3, label=f"fit by a network {net.sizes}")
left.plot(grid, curve(grid), color="black", linestyle="--", linewidth=1.2, label="curve behind the data")
left.set(xlabel="x", ylabel="y", title="Fit")
left.legend(frameon=False)
right.plot(run.history["cost"], color="tab:blue", linewidth=2, label="training")
right.plot(run.history["validation_cost"], color="black", linewidth=1, label="validation")
right.axhline(noise**2 / 2, color="0.4", linewidth=1, linestyle="--", label="of the noise alone")
right.set(xlabel="epoch", ylabel="cost C", yscale="log", title="Training")
right.legend(frameon=False)
for axes in (left, right):
    axes.spines[["top", "right"]].set_visible(False)
figure.savefig(path, dpi=150)
print(f"saved {path}")

if distance > noise / 2:
    raise SystemExit("the fit should be much nearer to the curve than the noisy points are")
