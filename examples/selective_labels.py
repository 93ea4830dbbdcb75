# %% [markdown]
# # Where have crops failed that nobody inspected?
#
# Officials inspect some farms for crop failure, and only there is the outcome known. They do not inspect at random:
# they go where the image from space and what they hear on the ground look bad, and seldom far from the road. Whoever
# takes the uninspected for healthy underrates the remote; whoever learns from the inspected alone overrates everyone,
# because officials knew more than the data say. Here the truth is simulated, so that every answer can be checked.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline

import causalsat
from causalsat.evaluation import risk_calibration
from causalsat.plots import plot_risk_calibration, plot_testing_policy
from causalsat.report import Figure, Page, Section, Table

rng = np.random.default_rng(3)
trial = causalsat.simulate.satellite_trial("smooth", n_units=2500, n_sites=250, seed=3)
farms = trial.units[["road_km", "geometry"]].copy()
land = (trial.units["tau"] - trial.units["tau"].mean()) / trial.units["tau"].std()  # a function of the chip's pixels
far = (farms["road_km"] - farms["road_km"].mean()) / farms["road_km"].std()
heard = rng.uniform(0, 2.5, len(farms))  # what officials heard: in no data set
logit = -2.2 - 0.9 * land + 0.3 * far + heard
failed = rng.random(len(farms)) < 1 / (1 + np.exp(-logit))
inspected = (rng.random(len(farms)) < 1 / (1 + np.exp(-(logit + 0.6 - 0.9 * far)))).astype(int)
outcome = np.where(inspected == 1, failed, np.nan)
print(f"{inspected.mean():.0%} inspected; failures among them {failed[inspected == 1].mean():.0%}", end=", ")
print(f"among the others {failed[inspected == 0].mean():.0%} (which no data set would show)")

# %% [markdown]
# Features: principal components of the image around each farm, and the distance to the road. Two things are known
# besides: a sample survey puts failures at so many per cent of all farms, give or take one; and officials depart from
# risk, if at all, because of the distance.

# %%
encoder = causalsat.ImageEncoder(causalsat.open_imagery(trial.imagery), size_m=960, n_components=6, keep=["road_km"])
features = encoder.fit_transform(farms)
settings = {"n_draws": 800, "n_tune": 400, "random_state": 0}
models = {
    "inspected only": causalsat.TestedOnlyRisk(random_state=0),
    "uninspected taken for healthy": causalsat.UntestedNegativeRisk(random_state=0),
    "selective labels": causalsat.SelectiveLabelsRisk(**settings),
    "selective labels, constrained": causalsat.SelectiveLabelsRisk(
        prevalence=(failed.mean(), 0.01), expertise=["road_km"], **settings
    ),
}
for model in models.values():
    model.fit(features, outcome, treatment=inspected)
print(models["selective labels, constrained"].summary())

# %% [markdown]
# Do the risks come true among the farms that nobody inspected? The Brier score and the calibration error say; the
# AUC, which only ranks, would not notice that all risks are too high. Without the two pieces of knowledge the model
# does no better than taking the uninspected for healthy: what officials heard and where they look are hard to tell
# apart from the data alone.

# %%
out = Path("outputs/selective_labels")
out.mkdir(parents=True, exist_ok=True)
unseen = inspected == 0
checks = {
    name: risk_calibration(model.risk(features, given="untested").mean()[unseen], failed[unseen])
    for name, model in models.items()
}
table = pd.DataFrame(
    {name: {"Brier score": c.brier, "calibration error": c.calibration_error} for name, c in checks.items()}
).T
print(table.round(4))
plot_risk_calibration(checks, title="Farms that nobody inspected").figure.savefig(out / "calibration.png", dpi=120)

# %% [markdown]
# What if the survey's prevalence were wrong? Every fit with a prevalence shows what the answer would be instead.

# %%
constrained = models["selective labels, constrained"]
print(pd.DataFrame(constrained.sensitivity_).round(3))

# %% [markdown]
# Who is inspected less than their risk warrants? The departure is how far the decision is from risk, in logits; the
# picture shows it: at the same risk officials come less often to farms far from the road.

# %%
quarter = pd.qcut(far, 4, labels=["nearest", "near", "far", "farthest"])
departure = constrained.departure(features).gate(quarter.astype(str)).to_dataframe()
print(departure.loc[quarter.cat.categories].round(2))
policy = plot_testing_policy(constrained.risk(features), constrained.decision(features), quarter)
policy.figure.savefig(out / "policy.png", dpi=120)

# %% [markdown]
# Risk where no official goes: villages outside the region, at the distance of the average farm, beside the truth. The
# intervals are about this model's risk: what six components miss of the land they do not know.

# %%
villages = trial.places.assign(road_km=farms["road_km"].mean())
risk = constrained.risk(encoder.transform(villages))
there = (villages["tau"] - trial.units["tau"].mean()) / trial.units["tau"].std()
truth = (1 / (1 + np.exp(-(-2.2 - 0.9 * there.to_numpy()[:, None] + np.linspace(0, 2.5, 200))))).mean(axis=1)
lower, upper = risk.interval(0.9).T
print(f"correlation with the truth: {np.corrcoef(risk.mean(), truth)[0, 1]:.2f}", end="; ")
print(f"90 % intervals cover it in {np.mean((lower < truth) & (truth < upper)):.0%} of {len(truth)} villages")
figure, axes = plt.subplots(1, 2, figsize=(6.4, 5.2), sharey=True, layout="constrained")
shared = {"vmin": 0, "vmax": max(truth.max(), risk.mean().max()), "cmap": "cividis", "s": 18}
for ax, values, title in zip(axes, (risk.mean(), truth), ("Predicted risk", "True risk"), strict=True):
    points = ax.scatter(villages.geometry.x / 1000, villages.geometry.y / 1000, c=values, **shared)
    ax.set(title=title, xlabel="easting, km", aspect="equal")
axes[0].set_ylabel("northing, km")
figure.colorbar(points, ax=axes, label="probability of failure")
figure.savefig(out / "villages.png", dpi=120)
plt.close("all")

# %% [markdown]
# The same for every cell of the region, at the distance of the average farm: risk, how uncertain it is, and how
# likely an official is to come. Where risk is high and the decision seldom, nobody looks. Land unlike that of the
# farms is hatched.

# %%
mapped = causalsat.map_risk(
    make_pipeline(encoder, constrained),
    causalsat.open_imagery(trial.imagery),
    resolution=600,
    out=out / "risk.tif",
    covariates={"road_km": float(farms["road_km"].mean())},
    sites=farms.iloc[::25],
    title="Risk of crop failure",
    progress=False,
)
print(mapped)

# %% [markdown]
# One page with all of it.

# %%
pictures = {
    "Do the risks come true?": ("calibration", "Reliability curves of four models"),
    "Who is inspected at the same risk?": ("policy", "Inspections against risk by distance from the road"),
    "Villages outside the region": ("villages", "Maps of predicted and true risk"),
    "Every cell of the region": ("risk", "Map of risk, its uncertainty and the decision"),
}
page = Page(
    "Where have crops failed that nobody inspected?",
    ["Errors of the predicted risks of farms that nobody inspected, beside two simpler models."],
    [Section("Errors", tables=[Table.of(table, digits=4)])]
    + [Section(title, figures=[Figure(out / f"{name}.png", alt)]) for title, (name, alt) in pictures.items()]
    + [Section("The constrained model", text=str(constrained.summary()))],
)
print(f"wrote {page.write(out / 'report.html')}")
