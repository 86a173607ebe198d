"""Backpropagation by hand through a network of one node a layer, beside what the library computes.

With one node a layer every chain is a chain of numbers, so each line below is a formula one can follow with a pencil:

    forward     p_0 = x,  q_j = sigma_j(p_j),  p_{i+1} = w_i q_i
    backward    Delta_3 = (q_3 - y) sigma_3'(p_3),  Delta_i = Delta_{i+1} w_i sigma_i'(p_i)
    gradient    dC/dw_i = Delta_{i+1} q_i,  where w_i leads from node i to i+1 and C = (q_3 - y)^2 / 2

Prints p, q and Delta of every node and dC/dw of every weight, by hand and from the library.
"""

from collections.abc import Callable
from math import cosh, exp, isclose, log1p, tanh

import numpy as np

import gpubp

x, y = 0.8, 0.3
w = [1.5, -0.7, 2.0]
sigma = ["tanh", "sigmoid", "softplus", "identity"]
value: list[Callable[[float], float]] = [
    tanh,
    lambda p: 1 / (1 + exp(-p)),
    lambda p: log1p(exp(p)),
    lambda p: p,
]
slope: list[Callable[[float], float]] = [
    lambda p: 1 / cosh(p) ** 2,
    lambda p: exp(-p) / (1 + exp(-p)) ** 2,
    lambda p: 1 / (1 + exp(-p)),
    lambda p: 1.0,
]

# By hand. Forward, from node 0 to node 3 ...
p, q = [x], [value[0](x)]
for i in range(3):
    p.append(w[i] * q[i])
    q.append(value[i + 1](p[i + 1]))
# ... and backward, from node 3 to node 0.
Delta = [0.0, 0.0, 0.0, (q[3] - y) * slope[3](p[3])]
for i in (2, 1, 0):
    Delta[i] = Delta[i + 1] * w[i] * slope[i](p[i])
dw = [Delta[i + 1] * q[i] for i in range(3)]

# The same by the library: a batch of one example, with the number of node j at [0, 0] of p[j], q[j] and Delta[j].
net = gpubp.Network((1, 1, 1, 1), input=sigma[0], hidden=sigma[1:3], output=sigma[3], bias=False)
chains = net.backward(np.array(w), np.array([[x]]), np.array([[y]]))
if chains.Delta is None or chains.dW is None:  # as after net.forward, which doesn't go back
    raise SystemExit("net.backward gave no backward chains")

rows = [(f"p_{j}", p[j], chains.p[j]) for j in range(4)]
rows += [(f"q_{j}", q[j], chains.q[j]) for j in range(4)]
rows += [(f"Delta_{j}", Delta[j], chains.Delta[j]) for j in range(4)]
rows += [(f"dC/dw_{i}", dw[i], chains.dW[i]) for i in range(3)]
print(f"{'':8} {'by hand':>19} {'library':>19}")
for name, by_hand, library in rows:
    print(f"{name:8} {by_hand:19.15f} {library[0, 0]:19.15f}")
    if not isclose(by_hand, library[0, 0], rel_tol=1e-12):
        raise SystemExit(f"{name} by hand is not what the library computes")
