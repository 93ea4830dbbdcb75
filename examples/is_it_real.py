# %% [markdown]
# # Is the heterogeneity real?
#
# A model that may vary effects will vary them: sort any trial by predicted effect, and the top fifth looks better
# than the bottom fifth. A ministry that wants to target a programme needs to know whether that is more than noise.
# Four answers, from the same out-of-fold effects, and at the end a trial in which the true answer is no.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import causalsat
from causalsat.evaluation import (
    SpatialBlockCV,
    blp,
    crossfit_effects,
    crossfit_nuisances,
    dr_scores,
    gates,
    permutation_test,
    rate,
    suggest_block_size,
)
from causalsat.plots import plot_gates, plot_toc
from causalsat.report import Figure, Page, Section, Table

study = causalsat.load_study("simulated_trial")
model = causalsat.image_model(study, causalsat.DoublyRobustEffect(modifiers="img*"), n_components=8)

# %% [markdown]
# Effects of each village by models that have not seen it (encoder and components included), and doubly robust scores
# to judge them by: one number a person whose average over any group is that group's effect.

# %%
roles = {"treatment": study.treatment, "groups": study.groups}
out = crossfit_effects(model, study.X, study.y, **roles, progress=False)
study.fit(model)
features = pd.DataFrame(model[:-1].transform(study.X))
latents = features.filter(like="img")
covariates = features.drop(columns=latents.columns).fillna(features.mean())
nuisances = crossfit_nuisances(np.column_stack([latents, covariates]), study.y, **roles)
scores = dr_scores(study.y, study.treatment, nuisances)
shared = {"groups": study.groups}

# %% [markdown]
# **First: does sorting help people whose outcomes were not used?** The targeting curve (TOC) is how much larger the
# effect is among the share ranked first than among all; AUTOC is the area under it. Units are ranked within the fold
# in which they were held out: predictions of different folds come from different models. In the sample itself the
# same model looks better than it is.

# %%
autoc = rate(out.tau, scores, folds=out.fold, method="autoc", **shared)
flattered = rate(model.predict(study.X), scores, method="autoc", **shared)
print(f"AUTOC out of fold {autoc.estimate:.3f} (se {autoc.se:.3f}, ratio {autoc.ratio:.2f})")
print(f"AUTOC in sample   {flattered.estimate:.3f}: not evidence")

# %% [markdown]
# **Second: are the predicted differences right on average?** The slope of scores on predicted effects is 1 where
# they are, 0 where they are noise, below 1 where the model exaggerates. **Third: fifths of the prediction.**

# %%
line = blp(out.tau, scores, folds=out.fold, **shared)
fifths = gates(out.tau, scores, folds=out.fold, **shared)
print(line.to_dataframe().round(3))
print(fifths.to_dataframe().round(3))

# %% [markdown]
# **Fourth, and decisive in a trial: how often would effects that do not vary look like this?** The treatment is
# assigned anew to whole villages, as it was, and the statistic computed again.

# %%
test = permutation_test(latents, study.y, study.treatment, covariates=covariates, n_permutations=199, **shared)
print(f"p = {test.p_value:.3f}")

# %% [markdown]
# **Neighbours resemble each other.** Folds of single villages may leave a village's twin in training. Blocks of
# ground as wide as the outcome's correlation reaches do not; what remains is what a new region could expect. Other
# fold seeds show how much of an AUTOC is luck of the split.

# %%
block = suggest_block_size(scores, study.X)
print(f"blocks of {block.block_m:,.0f} m")
ratios = {}
for seed in range(2):
    again = crossfit_effects(model, study.X, study.y, **roles, random_state=seed, progress=False)
    ratios[f"villages, seed {seed}"] = rate(again.tau, scores, folds=again.fold, **shared).ratio
    blocks = SpatialBlockCV(block.block_m, random_state=seed)
    again = crossfit_effects(model, study.X, study.y, **roles, cv=blocks, progress=False)
    ratios[f"blocks, seed {seed}"] = rate(again.tau, scores, folds=again.fold, **shared).ratio
table = pd.DataFrame({"AUTOC ratio": ratios}).sort_index()
print(table.round(2))

# %% [markdown]
# **The same on a trial whose effect is the same everywhere.** The page must be able to say no.

# %%
null = causalsat.simulate.satellite_trial("none", seed=1).study()
null_model = causalsat.image_model(null, causalsat.DoublyRobustEffect(modifiers="img*"), n_components=8)
nothing = causalsat.analyse(null, null_model, n_permutations=199, progress=False)
print(nothing.verdict())

# %% [markdown]
# One page with all of it.

# %%
folder = Path("outputs/is_it_real")
folder.mkdir(parents=True, exist_ok=True)
plot_toc(autoc).figure.savefig(folder / "toc.png", dpi=120)
plot_gates(fifths).figure.savefig(folder / "gates.png", dpi=120)
plt.close("all")
page = Page(
    "Is the heterogeneity real?",
    [f"Permutation test p = {test.p_value:.3f}; AUTOC ratio {autoc.ratio:.2f}; calibration slope {line.slope:.2f}."],
    [
        Section(
            "Does sorting help?",
            tables=[Table.of(autoc.to_dataframe(), "AUTOC, out of fold"), Table.of(table, "Other folds", digits=2)],
            figures=[Figure(folder / "toc.png", "Targeting curve: effect above the average by share treated first")],
        ),
        Section(
            "Are the differences right?",
            tables=[Table.of(line.to_dataframe(), "Calibration"), Table.of(fifths.to_dataframe(), "Fifths")],
            figures=[Figure(folder / "gates.png", "Average effect by fifth of the predicted effect")],
        ),
    ],
)
print(f"wrote {page.write(folder / 'report.html')}")
