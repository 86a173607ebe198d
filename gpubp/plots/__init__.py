"""Pictures of networks, chains and training, by matplotlib (the extra ``plot``).

Every function draws into ``ax`` (the axes of a new figure where it is None), gives it back, and neither shows nor
saves. Chains and costs are computed where ``w`` and ``x`` live; what is drawn is then moved to the host.

networks : nodes and weights, chains, training
landscape : the cost above the weights
predictions : what a network answers
style : axes, colours and markers of all of them
"""

from gpubp.plots.landscape import cost_along_gradient, cost_plane, descent
from gpubp.plots.networks import (
    Snapshots,
    activation,
    activation_histograms,
    architecture,
    history,
    norms,
    norms_in_training,
)
from gpubp.plots.predictions import confusion_matrix, decision_boundary, predicted_against_true

__all__ = [
    "Snapshots",
    "activation",
    "activation_histograms",
    "architecture",
    "confusion_matrix",
    "cost_along_gradient",
    "cost_plane",
    "decision_boundary",
    "descent",
    "history",
    "norms",
    "norms_in_training",
    "predicted_against_true",
]


def __dir__() -> list[str]:
    return __all__
