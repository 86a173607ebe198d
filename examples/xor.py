"""A network learns XOR, which no network without a hidden layer can.

XOR is 1 where exactly one of its two inputs is 1. No straight line separates its ones from its zeros, so a network that
goes straight from input to output can't do better than answering 0.5 to everything. Four hidden nodes are enough.

Prints the truth table with both networks' answers.
"""

import numpy as np

import gpubp

# One example a row, as everywhere in gpubp.
x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
y = np.array([0, 1, 1, 0], dtype=np.float32)


def answers(sizes: tuple[int, ...]) -> np.ndarray:
    """What a network of these sizes answers to the four rows of x after training, between 0 and 1."""
    # The cost of a yes-or-no question; it puts a sigmoid on the output, so an answer is a probability.
    net = gpubp.Network(sizes, hidden="tanh", cost="binary_cross_entropy")
    # Four rows are one batch, so an epoch is one step; a small problem takes a large learning rate.
    optimizer = gpubp.Adam(learning_rate=0.1)
    run = gpubp.train(net, x, y, optimizer=optimizer, epochs=300, device="cpu", progress=False)
    return np.asarray(run.predict(x)[:, 0])


without_hidden = answers((2, 1))
with_hidden = answers((2, 4, 1))

print("x1 x2 | XOR | no hidden layer | four hidden nodes")
for (x1, x2), wanted, q, q_hidden in zip(x, y, without_hidden, with_hidden, strict=True):
    print(f" {x1:.0f}  {x2:.0f} |  {wanted:.0f}  | {q:15.3f} | {q_hidden:17.3f}")

if not np.array_equal(with_hidden > 0.5, y == 1):
    raise SystemExit("the network with a hidden layer did not learn XOR")
if np.array_equal(without_hidden > 0.5, y == 1):
    raise SystemExit("the network without a hidden layer learned XOR, which is impossible")
