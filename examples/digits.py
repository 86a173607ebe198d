"""From pictures of handwritten digits to a saved model that reads new ones.

Splits the bundled digits, standardises the pixels, trains until a validation part stops improving, measures on a test
part that training never saw, saves network, weights and scaler to one file, and predicts again from that file.
Run it as `python digits.py [FILE]`; FILE is digits.safetensors in the current folder unless given.

Prints the device, why and when training stopped, the test accuracy, and ten digits as read from the saved model.
"""

import sys

import numpy as np

import gpubp

path = sys.argv[1] if len(sys.argv) > 1 else "digits.safetensors"

# 1,797 pictures of 8x8 pixels from 0 to 16, and the digit that each one shows.
pictures, labels = gpubp.load_digits()
order = np.random.default_rng(0).permutation(len(labels))
test, validation, training = order[:360], order[360:660], order[660:]

# The scaler learns mean and deviation of every pixel from the training rows alone.
scaler = gpubp.Standardizer.fit(pictures[training])
x = scaler.apply(pictures)

# Cross-entropy puts a softmax on the output: ten probabilities a picture. Integer labels are taken as they are.
net = gpubp.Network((64, 128, 10), cost="cross_entropy")
run = gpubp.train(
    net,
    x[training],
    labels[training],
    validation=(x[validation], labels[validation]),
    optimizer=gpubp.Adam(learning_rate=3e-3),
    epochs=200,
    patience=10,  # stop after ten epochs without a lower validation cost; run.w is the best epoch's
    batch_size=32,
    l2=1e-3,
)
print(f"trained on {run.device.name} ({run.device.description})")
print(f"stopped by {run.stopped} after {len(run.history['epoch'])} epochs, best was epoch {run.best_epoch}")

read = np.argmax(run.predict(x[test]), axis=1)
accuracy = np.mean(read == labels[test])
print(f"test accuracy {accuracy:.1%} on {len(test)} pictures")

gpubp.save(path, net, run.w, scaler=scaler, labels=range(10))
model = gpubp.load(path)
if model.scaler is None or model.labels is None:
    raise SystemExit("the file lost the scaler or the labels")
q = model.net.predict(model.w, model.scaler.apply(pictures[test]))
again = np.asarray(model.labels)[np.argmax(q, axis=1)]
print(f"saved to {path} and loaded again; what it reads in ten pictures, and the truth:")
print(*again[:10])
print(*labels[test][:10])

if accuracy < 0.95:
    raise SystemExit("a test accuracy of at least 95 % was expected")
if np.mean(again == read) < 0.99:  # a GPU and a CPU may disagree on a picture that is on the edge
    raise SystemExit("the saved model does not predict what the trained one did")
