"""Pictures: what is drawn is what the library computes, on axes given or made, and refusals say what is needed."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import Place

import gpubp
from gpubp import plots

figure = pytest.importorskip("matplotlib.figure", reason="matplotlib is not installed: pip install '.[plot]'")
pyplot = pytest.importorskip("matplotlib.pyplot")

NET = gpubp.Network((2, 5, 3), hidden="tanh", cost="cross_entropy")
X = np.random.default_rng(0).standard_normal((30, 2))
Y = np.arange(30) % 3
W = NET.init(0, dtype="float64")
ONE = gpubp.Network((1, 1), bias=False)
x1 = np.array([[1.0], [2.0], [-1.5]])
y1 = np.array([[2.0], [3.5], [-3.5]])


@pytest.fixture(autouse=True)
def _no_windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pyplot.switch_backend("Agg")
    monkeypatch.setattr(pyplot, "show", lambda *_, **__: pytest.fail("a picture was shown"))
    yield
    pyplot.close("all")


@pytest.fixture
def ax() -> Any:
    return figure.Figure().subplots()


def labelled(ax: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in ax.lines}


def data(line: Any) -> Any:
    return np.asarray(line.get_data(), float)


RUN = gpubp.train(NET, X, Y, epochs=3, validation=0.2, device="cpu", progress=False)
DRAWN = {
    "architecture": lambda ax: plots.architecture(NET, W, ax=ax),
    "history": lambda ax: plots.history(RUN, ax=ax),
    "norms": lambda ax: plots.norms(NET, W, X, Y, ax=ax),
    "norms_in_training": lambda ax: plots.norms_in_training(NET, [W, 2 * W], X, Y, ax=ax),
    "activation_histograms": lambda ax: plots.activation_histograms(NET, W, X, ax=ax),
    "decision_boundary": lambda ax: plots.decision_boundary(NET, W, X, Y, resolution=20, ax=ax),
    "cost_along_gradient": lambda ax: plots.cost_along_gradient(NET, W, X, Y, ax=ax),
    "cost_plane": lambda ax: plots.cost_plane(NET, W, X, Y, resolution=5, ax=ax),
    "predicted_against_true": lambda ax: plots.predicted_against_true(y1, y1 + 0.1, ax=ax),
    "confusion_matrix": lambda ax: plots.confusion_matrix(RUN.predict(X), Y, ax=ax),
    "descent": lambda ax: plots.descent(ONE, x1, y1, starts=(-1, 4), learning_rate=0.1, ax=ax),
}


@pytest.mark.parametrize("name", DRAWN)
def test_axes_are_taken_or_made_and_given_back(name: str, ax: Any) -> None:
    assert DRAWN[name](ax) is ax
    assert pyplot.get_fignums() == []
    made = DRAWN[name](None)
    assert made.figure is pyplot.figure(pyplot.get_fignums()[0])
    assert len(made.lines) == len(ax.lines)
    made.figure.canvas.draw()  # warnings are errors
    with pytest.raises(
        TypeError, match=r"ax must be a matplotlib Axes, got str: leave it out to have one made"
    ):
        DRAWN[name]("left")


def test_every_picture_is_tested() -> None:
    assert {*DRAWN, "activation", "Snapshots"} == set(plots.__all__)


def test_widths_and_dashes_tell_the_weights(ax: Any) -> None:
    net = gpubp.Network((2, 2), bias=False)
    plots.architecture(net, net.flatten([(np.array([[1.0, -2.0], [0.5, 4.0]]), None)]), ax=ax)
    drawn = [line for line in ax.lines if len(line.get_xdata())]
    np.testing.assert_allclose([line.get_linewidth() for line in drawn], [0.8, 1.6, 0.4, 3.2])
    assert [line.is_dashed() for line in drawn] == [False, True, False, False]
    # y falls with the node's number: the negative weight leads from input 1, the lower, to output 0, the upper
    ends = np.asarray(drawn[1].get_ydata())
    assert ends[0] < ends[1]


def test_large_layers_are_cut(ax: Any) -> None:
    net = gpubp.Network((100, 7))
    plots.architecture(net, most=6, ax=ax)
    assert len(ax.lines) == 36
    assert "q[0]: 100\nidentity" in [text.get_text() for text in ax.texts]


def test_history_draws_both_parts_and_the_best(ax: Any) -> None:
    lines = labelled(plots.history(RUN, ax=ax))
    np.testing.assert_array_equal(data(lines["training"])[1], RUN.history["cost"])
    np.testing.assert_array_equal(data(lines["validation"])[1], RUN.history["validation_cost"])
    assert lines["the best, kept"].get_xdata() == [RUN.best_epoch]
    ax.clear()
    np.testing.assert_array_equal(
        data(plots.history(RUN.history, of="metric", ax=ax).lines[0])[1], RUN.history["metric"]
    )


def test_norms_are_those_of_the_chains(ax: Any) -> None:
    lines = labelled(plots.norms(NET, W, X, Y, label="tanh", ax=ax))
    chains = NET.backward(W, X, Y)
    wanted = [math.sqrt((Delta**2).sum()) for Delta in chains.Delta]
    np.testing.assert_allclose(data(lines["tanh, Delta[j]"]), np.stack([np.arange(3), wanted]))
    wanted = [math.sqrt((dW**2).sum()) for dW in chains.dW]
    np.testing.assert_allclose(data(lines["tanh, dW[i]"]), np.stack([np.array([0.5, 1.5]), wanted]))
    plots.norms(NET, W, X, Y, of=["dW"], label="again", ax=ax)
    assert len({(line.get_color(), str(line.get_linestyle()), line.get_marker()) for line in ax.lines}) == 3


def test_snapshots_are_a_callback_and_its_copies(ax: Any) -> None:
    first = NET.init(3, dtype="float64")
    kept = plots.Snapshots([first])
    run = gpubp.train(NET, X, Y, w=first, epochs=4, device="cpu", progress=False, callbacks=[kept])
    assert len(kept) == 5
    np.testing.assert_array_equal(kept[-1], run.w)
    assert not np.array_equal(kept[1], kept[2])
    lines = labelled(plots.norms_in_training(NET, kept, X, Y, of="Delta", ax=ax))
    wanted = [np.linalg.norm(NET.backward(w, X, Y).Delta[1]) for w in kept]
    np.testing.assert_allclose(data(lines["Delta[1]"]), np.stack([np.arange(5), wanted]))


def test_histograms_leave_out_zeros_and_tell_them(ax: Any) -> None:
    net = gpubp.Network((2, 1), output="relu", bias=False)
    x = np.array([[1.0, 0.0], [-1.0, 0.0], [2.0, 0.0], [-3.0, 0.0]])
    plots.activation_histograms(net, np.array([1.0, 0.0]), x, bins=2, ax=ax)
    assert [text.get_text() for text in ax.texts] == ["50% are 0", "50% are 0"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["q[0] identity", "q[1] relu"]
    heights = ax.patches[0].get_data().values
    np.testing.assert_allclose(heights, [0.85, 0.85])  # -3 and -1; 1 and 2


@pytest.mark.parametrize("name", ["sigmoid", "relu", "identity", "gelu"])
def test_activation_draws_sigma_and_its_slope(name: str) -> None:
    left, right = plots.activation(name, span=(-2, 3))
    p, q = data(left.lines[0])
    slope = data(right.lines[0])[1]
    inner = np.abs(p) > 0.1  # off relu's kink
    np.testing.assert_allclose(slope[inner], np.gradient(q, p, edge_order=2)[inner], atol=2e-3)
    assert left.get_legend_handles_labels()[1] == [name]
    pair = figure.Figure().subplots(1, 2)
    assert plots.activation(name, ax=pair) == tuple(pair)


def test_the_boundary_is_where_the_classes_meet(ax: Any) -> None:
    """One output, q = sigmoid(x_0 - 0.25): its boundary is the line x_0 = 0.25."""
    net = gpubp.Network((2, 1), cost="binary_cross_entropy")
    w = net.flatten([(np.array([[1.0, 0.0]]), np.array([-0.25]))])
    plots.decision_boundary(net, w, X, (X[:, 0] > 0.25).astype(float), labels=("no", "yes"), ax=ax)
    lines = [
        c
        for c in ax.collections
        if len(c.get_linewidths()) and c.get_paths() and "QuadContourSet" in str(type(c))
    ]
    corners = np.concatenate([path.vertices for c in lines if not c.filled for path in c.get_paths()])
    np.testing.assert_allclose(corners[:, 0], 0.25, atol=1e-3)
    assert ax.get_legend_handles_labels()[1] == ["no", "yes"]


def test_the_line_along_the_gradient(ax: Any) -> None:
    lines = labelled(plots.cost_along_gradient(NET, W, X, Y, reach=0.5, ax=ax))
    eta, C = data(lines["C[w - eta g]"])
    C_0, g = NET.cost_and_gradient(W, X, Y)
    assert (eta[0], eta[-1]) == (0, 0.5)
    np.testing.assert_allclose(C[[0, -1]], [C_0, NET.cost(W - 0.5 * g, X, Y)])
    eta, promised = data(lines["C - eta |g|^2"])
    np.testing.assert_allclose(promised, C_0 - eta * (g @ g))
    ax.clear()
    eta, C = data(plots.cost_along_gradient(ONE, np.array([0.0]), x1, y1, ax=ax).lines[0])
    np.testing.assert_allclose(
        eta[C.argmin()], 1 / (x1**2).mean(), rtol=0.05
    )  # a parabola's: 1 / its curvature


def test_the_plane_and_a_path_on_it(ax: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    u, v = np.zeros((2, NET.n_weights))
    u[0], v[:2] = 2.0, 3.0
    path = [W + 0.4 * u, W + u, W]
    seen: dict[str, Any] = {}
    contourf = ax.contourf
    monkeypatch.setattr(ax, "contourf", lambda *a, **k: seen.update(given=a) or contourf(*a, **k))
    plots.cost_plane(NET, W, X, Y, directions=(u, v), path=path, reach=0.5, resolution=3, ax=ax)
    a, b, C = seen["given"]
    np.testing.assert_allclose(np.stack([a, b]), np.array([[-0.5, 0, 0.5]] * 2))
    moved = W.copy()
    moved[:2] += 0.5, -0.5  # v without its part along u is the second weight's direction
    np.testing.assert_allclose(C[0, 2], NET.cost(moved, X, Y))
    np.testing.assert_allclose(data(labelled(ax)["path"]), np.array([[0.8, 2, 0], [0, 0, 0]]), atol=1e-12)
    plots.cost_plane(NET, W, X, Y, path=[W, W + u, W + v], resolution=3, ax=ax)
    np.testing.assert_allclose(np.hypot(*np.array(data(labelled(ax)["path"]))[:, 2]), np.linalg.norm(v))


def test_predictions_beside_the_truth(ax: Any) -> None:
    q = y1 + np.array([[0.1], [-0.1], [0.1]])
    plots.predicted_against_true(q[:, 0], y1, ax=ax)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), np.concatenate([y1, q], axis=1))
    r2 = 1 - 0.03 / ((y1 - y1.mean()) ** 2).sum()
    assert ax.texts[0].get_text() == f"R2 = {r2:.3f}"


@pytest.mark.parametrize(
    "q", [np.array([0, 1, 1, 1]), np.array([0.2, 0.6, 0.9, 1.0]), np.eye(2)[[0, 1, 1, 1]]]
)
def test_confusions_are_counted(q: Any, ax: Any) -> None:
    plots.confusion_matrix(q, np.array([0, 0, 1, 1]), labels=("cat", "dog"), ax=ax)
    assert {text.get_position(): text.get_text() for text in ax.texts} == {
        (0, 0): "1",
        (1, 0): "1",
        (1, 1): "2",
    }
    np.testing.assert_allclose(ax.images[0].get_array(), np.array([[0.5, 0.5], [0, 1]]))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["cat", "dog"]


def test_descent_follows_the_rule(ax: Any) -> None:
    """C = sum (w x - y)^2 / 2n: its minimum is sum xy / sum xx, and w* - w_t shrinks by 1 - eta mean(x^2) a step."""
    lines = labelled(plots.descent(ONE, x1, y1, starts=(-1.0, 4.0), learning_rate=0.1, steps=3, ax=ax))
    best = (x1 * y1).sum() / (x1**2).sum()
    for start in (-1.0, 4.0):
        w, C = data(lines[f"from w_0 = {start:.3g}"])
        np.testing.assert_allclose(w, best + (start - best) * (1 - 0.1 * (x1**2).mean()) ** np.arange(4))
        np.testing.assert_allclose(C, [((each * x1 - y1) ** 2).mean() / 2 for each in w])
    star = data(lines[f"w* = {best:.3g}"])[0]
    np.testing.assert_allclose(star, best, rtol=1e-9)
    ends, heights = data(lines["slopes dC/dw"])
    slope = ((-1.0 * x1 - y1) * x1).mean()
    np.testing.assert_allclose(np.diff(heights) / np.diff(ends), slope)
    ax.clear()
    plots.descent(ONE, x1, y1, starts=(3.0,), learning_rate=0.1, span=(2.5, 4.0), ax=ax)
    assert not any(label.startswith("w*") for label in labelled(ax))  # beyond the curve that is drawn
    assert ax.get_xlim() == (2.5, 4.0)


def test_arrays_of_every_library_are_drawn(place: Place) -> None:
    w, x, y = place.array(W), place.array(X), place.array(Y, "int32")
    plots.norms(NET, w, x, y)
    plots.cost_along_gradient(NET, w, x, y)
    plots.decision_boundary(NET, w, x, y, resolution=10)
    plots.architecture(NET, w)
    plots.cost_plane(NET, w, x, y, resolution=3, path=[w, 2 * w])
    plots.activation_histograms(NET, w, x)
    plots.descent(ONE, place.array(x1), place.array(y1), starts=(0.0,), learning_rate=0.1, steps=1)
    plots.confusion_matrix(NET.predict(w, x), y)
    plots.predicted_against_true(place.array(x1), place.array(y1))
    pyplot.close("all")


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (
            lambda: plots.architecture((2, 3)),  # type: ignore[arg-type]
            r"net must be a gpubp.Network, got tuple: make one",
        ),
        (lambda: plots.architecture(NET, most=1), "most must be at least 2, got 1"),
        (lambda: plots.architecture(NET, W[1:]), r"w must have shape \(n_weights,\)"),
        (lambda: plots.architecture(NET, W * np.nan), "w must be finite to be drawn, got a NaN or inf"),
        (lambda: plots.history(RUN, of="loss"), "of must be 'cost' or 'metric', got 'loss'"),
        (
            lambda: plots.history({"epoch": [1], "metric": [None], "validation_metric": [None]}, of="metric"),
            "run must have a metric of one epoch at least, got none: train with epochs and metric",
        ),
        (lambda: plots.norms(NET, W, X, Y, of=["p"]), r"of must hold 'Delta', 'dW' or both, got \['p'\]"),
        (lambda: plots.norms_in_training(NET, [], X, Y), "weights must hold one w at least, got none"),
        (lambda: plots.norms_in_training(NET, [W], X, Y, of="q"), "of must be 'Delta' or 'dW', got 'q'"),
        (lambda: plots.activation_histograms(NET, W, X, bins=0), "bins must be at least 1, got 0"),
        (lambda: plots.activation(), "sigma must be one activation at least, got none"),
        (
            lambda: plots.activation("softmax"),
            "sigma must act on each node alone to be drawn as a curve, got 'softmax'",
        ),
        (lambda: plots.activation("tanh", ax=()), "ax must be two axes, for sigma and sigma', got 0"),
        (
            lambda: plots.decision_boundary(ONE, W[:1], x1),
            r"net must have n_0 = 2 inputs, a plane, got 1: choose two features",
        ),
        (
            lambda: plots.decision_boundary(NET, W, X, Y[1:]),
            "y must have one class for each of the 30 rows of X, got 29",
        ),
        (lambda: plots.cost_along_gradient(NET, W, X, Y, reach=0), r"reach must lie in \(0, inf\), got 0"),
        (
            lambda: plots.cost_along_gradient(ONE, np.array([2.0]), x1, 2 * x1),
            "the gradient must not be 0, got 0 at w: there is no direction",
        ),
        (
            lambda: plots.cost_plane(ONE, np.array([2.0]), x1, y1),
            "net must have two weights at least, got 1: see descent",
        ),
        (
            lambda: plots.cost_plane(NET, W, X, Y, directions=(W, W[1:])),
            r"directions must be two vectors of shape \(n_weights,\) with n_weights = 33, got",
        ),
        (
            lambda: plots.cost_plane(NET, W, X, Y, directions=(W, 2 * W)),
            "directions must span a plane, got two on one",
        ),
        (
            lambda: plots.predicted_against_true(x1, y1[1:]),
            r"q and y must have one shape, \(n,\) or \(n, n_L\), got",
        ),
        (lambda: plots.confusion_matrix(Y, Y[1:]), "q and y must have as many rows, got 30 and 29: one each"),
        (lambda: plots.confusion_matrix(Y, Y - 1), "y must hold classes from 0, got -1: number them from 0"),
        (
            lambda: plots.confusion_matrix(Y[:0], Y),
            r"q must have shape \(n,\) or \(n, n_L\) with n >= 1, got \(0,\)",
        ),
        (
            lambda: plots.confusion_matrix(Y, Y, labels="ab"),
            "labels must name all 3 classes, got 2: give one for each",
        ),
        (lambda: plots.confusion_matrix(1j * Y, Y), "q must hold real numbers, got complex128: convert it"),
        (
            lambda: plots.descent(NET, X, Y, starts=[0], learning_rate=1),
            r"net must have one weight, got 33: try Network\(\(1, 1\), bias=False\)",
        ),
        (
            lambda: plots.descent(ONE, x1, y1, starts=[], learning_rate=1),
            "starts must hold one w at least, got none",
        ),
        (
            lambda: plots.descent(ONE, x1, y1, starts=[0], learning_rate=0),
            r"learning_rate must lie in \(0, inf\), got 0",
        ),
        (
            lambda: plots.descent(ONE, x1, y1, starts=[0], learning_rate=1, steps=0),
            "steps must be at least 1, got 0",
        ),
    ],
)
def test_refusals(draw: Any, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        draw()
    assert pyplot.get_fignums() == []


def test_without_matplotlib_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    words = r"gpubp.plots needs matplotlib, which is not installed: pip install 'gpubp\[plot\]'"
    with pytest.raises(ModuleNotFoundError, match=words):
        plots.architecture(NET)
