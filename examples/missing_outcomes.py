# %% [markdown]
# # A fifth of the outcomes is missing, and not at random
#
# At the endline many treated people of the places where the grant worked had moved to town, and were not found. What
# does the trial still say? The data are simulated: the effect is known, and so is why outcomes are missing.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import causalsat
from causalsat.evaluation import lee_bounds
from causalsat.plots import plot_ate

trial = causalsat.simulate.satellite_trial("smooth", n_units=2500, n_sites=140, size_px=512, seed=3).draw_outcomes(5)
rng, tau = np.random.default_rng(1), trial.units["tau"]
large = (tau - tau.mean()) / tau.std()  # the effect follows what the images show
chance = 1 / (1 + np.exp(-np.where(trial.units["treatment"] == 1, 1.2 - 1.2 * large, 1.8)))
found = rng.random(len(tau)) < chance
complete = trial.study()
study = complete.replace(units=complete.units.assign(outcome=complete.units["outcome"].where(found)))

# %% [markdown]
# Nothing is dropped silently: the check stops, says how many outcomes are missing in each arm, tests whether response
# differs between the arms, and asks for a choice.

# %%
print(study.check())

# %% [markdown]
# The choice here: who responds depends on the arm, the covariates and what the images show. Then respondents are
# weighted by the inverse of their probability of response, which is estimated within each arm. In these data that is
# so; in yours it is an assumption, which no test confirms.

# %%
weighted = study.replace(missing_outcome="weight")
model = causalsat.image_model(weighted, causalsat.DoublyRobustEffect(modifiers="img*"), n_components=8)
analysis = causalsat.analyse(weighted, model, n_permutations=199, progress=False)
print(analysis)

# %% [markdown]
# Whoever doubts that can bound the effect instead. Lee's bounds model nothing about who responds. They assume that
# the grant moves response in one direction only, and they are for the people who would respond in either arm. They
# are wide: that is what the data say without the stronger assumption.

# %%
bounds = lee_bounds(study.y, study.treatment, groups=study.groups)
print(bounds)

# %% [markdown]
# Side by side with two rows that no real trial has: what it would have said had everybody been found, and the true
# average effect. Leaving out the missing loses those who gained most. The weights bring most of it back.

# %%
everybody = causalsat.analysis.average_effects(complete.y, design=complete.design)
rows = {
    "truth": trial.truth["ate"],
    "everybody found": everybody.loc["difference in means"],
    "respondents as they are": analysis.average.loc["respondents as they are"],
    "weighted, doubly robust": analysis.average.loc["doubly robust (AIPW)"],
}
columns = ["estimate", "lower", "upper"]
table = pd.DataFrame({k: [v] * 3 if k == "truth" else list(v[columns]) for k, v in rows.items()}, index=columns).T
table.loc["Lee bounds, their interval"] = [np.nan, *bounds.interval]
print(table.astype(float).round(2))
ax = plot_ate(
    table.drop(index="Lee bounds, their interval").astype(float), title="Average effect with missing outcomes"
)

# %% [markdown]
# The report has the shares missing, every row and the bounds. The map is that of the weighted effects.

# %%
folder = Path("outputs/missing_outcomes")
written = analysis.write(folder, resolution=240, progress=False)
ax.figure.savefig(folder / "averages.png", dpi=120, bbox_inches="tight")
plt.close("all")
print(f"wrote {len(written)} files in {folder}")
