"""CATENets' torch networks: its defaults but for what does not work as it comes.

Features and outcome are standardised here (the networks do not), batch normalisation is off (it stays in training
mode when predicting, so that a unit's effect depends on its company), and the step is 1e-3 (with 1e-4 early stopping
ends the training before it has begun). No intervals.
"""

import numpy as np
import torch
from catenets import logger
from catenets.models.torch import DragonNet, SNet, TARNet
from common import run

torch.set_num_threads(1)
logger.remove()


def network(kind):
    """A method that fits one of the networks."""

    def fit(trial):
        centre, scale = trial["X"].mean(axis=0), trial["X"].std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        y_scale = trial["y"].std()
        y = (trial["y"] - trial["y"].mean()) / y_scale
        X, new = ((table - centre) / scale for table in (trial["X"], trial["new"]))
        torch.manual_seed(trial["seed"])
        model = kind(X.shape[1], binary_y=False, batch_norm=False, lr=1e-3, seed=trial["seed"])
        model.fit(X, y, trial["t"])
        model.eval()
        with torch.no_grad():
            tau = model.predict(new)
        return (y_scale * np.asarray(tau.detach().cpu()),)

    return fit


run(
    {f"CATENets {kind.__name__}": network(kind) for kind in (TARNet, SNet, DragonNet)},
    ["catenets", "torch"],
)
