"""What was pickled and saved by gpubp as it was at 89933a4, before its modules were moved into folders, still loads."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpubp

DATA = Path(__file__).parent / "data"
NETS = {
    "per_node": gpubp.Network(
        (3, 3, 2), hidden=gpubp.per_node(["tanh", "relu", "leaky_relu(slope=0.2)"]), cost="huber(delta=2.0)"
    ),
    "labels": gpubp.Network((3, 4, 3), hidden="gelu", cost="cross_entropy"),
    "yes_or_no": gpubp.Network(
        (3, 2, 2), hidden="softplus", input="tanh", cost="binary_cross_entropy", bias=False
    ),
    "counts": gpubp.Network((3, 2), cost="poisson"),
}


@pytest.fixture(scope="module")
def pickled() -> Any:
    return pickle.loads((DATA / "before.pickle").read_bytes())


@pytest.mark.parametrize("name", NETS)
def test_a_pickled_network(name: str, pickled: Any) -> None:
    before, net = pickled[name], NETS[name]
    assert before["net"] == net
    np.testing.assert_allclose(before["net"].predict(before["w"], before["x"]), before["q"], rtol=1e-13)


@pytest.mark.parametrize("name", NETS)
def test_a_saved_model(name: str, pickled: Any) -> None:
    saved = gpubp.load(DATA / f"before_{name}.gpubp")
    assert saved.net == NETS[name]
    np.testing.assert_array_equal(saved.w, pickled[name]["w"])
    np.testing.assert_allclose(saved.predict(pickled[name]["x"]), pickled[name]["q"], rtol=1e-13)


def test_pickled_parts(pickled: Any) -> None:
    parts = pickled["parts"]
    assert parts["optimizer"] == gpubp.AdamW(0.1)
    assert parts["schedule"] == gpubp.schedules.Cosine(0.1, 10)
    assert parts["cost"] == gpubp.costs.quantile(tau=0.3)
    assert parts["interval"] == gpubp.costs.poisson().domain
    np.testing.assert_array_equal(parts["chains"].q[1], [[3.0]])
