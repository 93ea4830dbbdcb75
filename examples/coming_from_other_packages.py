# %% [markdown]
# # Coming from EconML, grf and causalimages
#
# I know `CausalForestDML`, `causal_forest` or `AnalyzeImageHeterogeneity`: what is the same analysis here, and does
# it agree? One trial, whose true effects are known, analysed each way. EconML runs below (`pip install econml`); R
# does not run inside a Python script, so its calls stand as comments beside ours.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import causalsat
from causalsat.evaluation import crossfit_nuisances, dr_scores, rate
from causalsat.plots import plot_ate
from causalsat.report import Figure, Page, Section, Table

trial = causalsat.simulate.satellite_trial("smooth", n_units=1500, n_sites=200, seed=4)
study = trial.study()
truth, new_truth = trial.units["tau"].to_numpy(), trial.places["tau"].to_numpy()

# %% [markdown]
# ## The images become columns
# EconML and grf take tables. Here the images can become one too; the covariates are kept beside them. Inside
# `image_model` this step is learned anew in every fold; for the other packages it is done once, up front.

# %%
encoder = causalsat.ImageEncoder(
    study.imagery, study.chip_size_m, causalsat.RandomConvFeatures(statistics=True), n_components=10
)
Z = encoder.fit_transform(study.X)
Z_new = encoder.transform(study.places)
W = study.X.drop(columns="geometry").fillna(study.X.drop(columns="geometry").mean())
y, t, village = study.y, study.treatment, study.groups

# %% [markdown]
# ## EconML
# What varies the effect is `X` there, what is only adjusted for is `W`. Here all are columns of one `X`, and
# `modifiers=` names those that vary the effect. `groups=` keeps EconML's folds from splitting a village; its
# intervals do not know of villages.

# %%
rows = {}


def judge(name, mean, lower, upper):
    """Correlation with the true effects of new places, their error, and how often intervals cover them."""
    rows[name] = {
        "correlation": np.corrcoef(mean, new_truth)[0, 1],
        "error": np.sqrt(np.mean((mean - new_truth) ** 2)),
        "90 % intervals cover": np.mean((lower < new_truth) & (new_truth < upper)),
    }


try:
    from econml.dml import CausalForestDML
    from sklearn.linear_model import LassoCV

    forest = CausalForestDML(
        model_y=LassoCV(), model_t="auto", discrete_treatment=True, n_estimators=500, random_state=0
    )
    forest.fit(y, t.astype(int), X=Z.to_numpy(), W=W.to_numpy(), groups=village)
    low, high = forest.effect_interval(Z_new.to_numpy(), alpha=0.1)
    judge("EconML CausalForestDML", forest.effect(Z_new.to_numpy()), low, high)
except ImportError:
    print("EconML is not installed: its row is left out")

# %% [markdown]
# ## Ours, on the same columns
# `effect` gives posterior draws; `interval`, `prob`, `ate`, `gate` all come from them.

# %%
table = pd.concat([Z, W], axis=1)
ours = {
    "DoublyRobustEffect": causalsat.DoublyRobustEffect(modifiers="img*", random_state=0),
    "BayesianLinearEffect": causalsat.BayesianLinearEffect(modifiers="img*", prior="normal", random_state=0),
}
for name, model in ours.items():
    model.fit(table, y, treatment=t, groups=village, propensity=0.5)
    effect = model.effect(Z_new.reindex(columns=table.columns))  # what does not vary the effect may be missing
    judge(name, effect.mean(), *effect.interval(0.9).T)
compared = pd.DataFrame(rows).T
print(compared.round(2))

# %% [markdown]
# ## grf
# ```r
# cf <- causal_forest(X = Z, Y = y, W = t, W.hat = 0.5, clusters = village)
# average_treatment_effect(cf)                      # AIPW, clustered
# test_calibration(cf)                              # mean and differential forest prediction
# best_linear_projection(cf, Z)
# rank_average_treatment_effect(cf, priorities)     # AUTOC, from an evaluation forest
# ```
# The same quantities: the average doubly robust score, the calibration slope, the projection's coefficients and the
# AUTOC. `crossfit_effects` makes the priorities that grf asks a second forest for.

# %%
dr = ours["DoublyRobustEffect"]
nuisances = crossfit_nuisances(table, y, treatment=t, groups=village, propensity=0.5)
scores = dr_scores(y, t, nuisances)
out = causalsat.evaluation.crossfit_effects(
    dr, table, y, treatment=t, groups=village, propensity=np.full(len(y), 0.5), progress=False
)
print(dr.summary())  # average_treatment_effect and best_linear_projection
print(causalsat.evaluation.blp(out.tau, scores, groups=village, folds=out.fold).to_dataframe().round(3))
autoc = rate(out.tau, scores, groups=village, folds=out.fold)
print(autoc.to_dataframe().round(3))

# %% [markdown]
# ## causalimages
# ```r
# AnalyzeImageHeterogeneity(obsW = t, obsY = y, imageKeysOfUnits = keys, file = "trial.tfrecord",
#                           kClust_est = 2, lat = lat, long = long, conda_env = "...")
# ```
# There the images are written to a tfrecord first, and the number of clusters is given. Here the raster is read where
# it lies, and the number of types is chosen by a randomisation test and on villages held out, one (no types)
# included.

# %%
clusters = causalsat.ImageEffectClusters(
    imagery=study.imagery,
    size_m=study.chip_size_m,
    backbone="random_conv",
    covariates=list(study.covariates),
    max_clusters=3,
    random_state=0,
)
clusters.fit(trial.units, y, treatment=t, groups=village)
print(clusters.summary())
judge("ImageEffectClusters", clusters.effect(study.places).mean(), *clusters.effect(study.places).interval(0.9).T)
compared = pd.DataFrame(rows).T

# %% [markdown]
# ## Stata
# ```stata
# cate aipw (y $covariates) (t), group(region)    // Stata 19
# estat heterogeneity
# ```
# `Study.from_file("survey.dta", ...)` reads the same file, labels included.
#
# One page with all of it.

# %%
folder = Path("outputs/coming_from_other_packages")
folder.mkdir(parents=True, exist_ok=True)
average = {
    "difference in means": causalsat.analysis.average_effects(y, t, groups=village).iloc[0],
    "DoublyRobustEffect": pd.Series(vars(dr.ate_)),
}
averages = pd.DataFrame(average).T[["estimate", "se", "lower", "upper"]].astype(float)
plot_ate(averages, title=f"Average effect; the truth is {truth.mean():.2f}").figure.savefig(
    folder / "ate.png", dpi=120
)
plt.close("all")
print(compared.round(2))
page = Page(
    "Coming from EconML, grf and causalimages",
    [f"The effects of {len(new_truth):,} places without a trial, by each package, beside the truth."],
    [
        Section("Single places", tables=[Table.of(compared, "Beside the true effects of new places", digits=2)]),
        Section("Average", figures=[Figure(folder / "ate.png", "Average effect by method with 95 % intervals")]),
        Section("Types of image", text=str(clusters.summary())),
    ],
)
print(f"wrote {page.write(folder / 'report.html')}")
