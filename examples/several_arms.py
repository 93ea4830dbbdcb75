# %% [markdown]
# # Cash or training: which arm where?
#
# Villages were drawn for control, a cash grant or a training course. Which of the two helps more, and does the answer
# depend on the place? The data are simulated: cash works best where training works least, and the images show where
# that is.

# %%
from pathlib import Path

import pandas as pd

import causalsat

trial = causalsat.simulate.arms_trial(n_units=2500, n_sites=140, size_px=512, seed=1)
study = trial.study()  # Study(..., treatment="arm", control="control")
print(study.check())

# %% [markdown]
# All arms are estimated together, because both are compared with the same control villages. The table has every
# pair; the Wald test below it asks whether the arms differ at all.

# %%
model = causalsat.image_model(study, causalsat.ArmsEffect(modifiers="img*"), n_components=8)
analysis = causalsat.analyse(study, model, n_permutations=199, progress=False)
print(analysis.comparison)

# %% [markdown]
# The averages of cash and training are alike. That does not mean that it makes no difference who gets what: here is
# the test of heterogeneity of each pair.

# %%
print(analysis.verdict())

# %% [markdown]
# For settlements where no trial ran: the arm with the largest predicted effect, the probability that it is the best
# of the three, and its predicted effect against control (`gain`). A probability of one half says that the trial
# cannot tell two arms apart there.

# %%
places = trial.base.places[["geometry"]]
best = causalsat.best_arm(analysis.model, places)
print(best.to_dataframe().head().round(2))
print(best.to_dataframe().groupby("arm").agg(places=("gain", "size"), probability=("probability", "mean")).round(2))

# %% [markdown]
# `write` makes a report, and a map of each arm against control. Here is also the map of cash against training:
# positive where cash is the better of the two.

# %%
folder = Path("outputs/several_arms")
written = analysis.write(folder, resolution=240, progress=False)
print(f"wrote {len(written)} files in {folder}")
causalsat.map_effects(
    analysis.model, study.imagery, resolution=240, out=folder / "cash_against_training.tif", treatment="cash",
    baseline="training", title="Cash against training", progress=False,
)  # fmt: skip
causalsat.plots.plot_map(folder / "cash_against_training.tif")

# %% [markdown]
# Only a simulation knows the best arm of every settlement. "Chosen by the images" is what the plan above would bring
# a head; the others give everybody the same.

# %%
tau = trial.base.places["tau"]
truth = pd.DataFrame({"control": 0.0, "cash": tau, "training": 0.3 - 0.5 * (tau - 0.4)})
chosen = pd.Series(best.arm, index=truth.index)
gain = {
    "cash for all": truth["cash"].mean(),
    "training for all": truth["training"].mean(),
    "chosen by the images": truth.to_numpy()[range(len(truth)), truth.columns.get_indexer(chosen)].mean(),
    "best possible": truth.max(axis=1).mean(),
}
print(pd.Series(gain, name="true gain a head").round(2).to_frame())
