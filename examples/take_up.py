# %% [markdown]
# # Half of the invited came: the effect on those who did
#
# Villages were drawn to be offered a programme, and about half of the people in them took it up. What does the offer
# do, what does the programme do to those who take it up, and where? The data are simulated: people with low incomes
# stay away, and more come where the programme helps more. The study's `treatment` is the assignment, its `take_up`
# who came.

# %%
from pathlib import Path

import matplotlib.pyplot as plt

import causalsat

trial = causalsat.simulate.take_up_trial(compliance=0.5, n_units=2500, n_sites=140, size_px=512, seed=1)
study = trial.study()  # Study(..., treatment="treatment", take_up="received")
print(study.check())

# %% [markdown]
# Comparing those who took it up with those who did not is tempting, and wrong: they chose.

# %%
took = trial.units["received"] == 1
print(f"took it up less did not: {study.y[took].mean() - study.y[~took].mean():.2f}, not an effect")

# %% [markdown]
# The *intention to treat* is the effect of the offer on everybody. The *first stage* is the share of people whom the
# offer moves to take it up, the compliers. The *effect on compliers* is the first divided by the second. It needs
# that the offer works through take-up only, and that nobody does the opposite of what is assigned. The Anderson-Rubin
# interval is right even where the first stage is weak; with an effective F of hundreds both intervals agree.

# %%
model = causalsat.image_model(study, causalsat.DoublyRobustEffect(modifiers="img*"), n_components=8)
analysis = causalsat.analyse(study, model, n_permutations=199, progress=False)
print(analysis.compliance)

# %% [markdown]
# Does the effect of the offer vary with what the images show?

# %%
print(analysis.verdict())

# %% [markdown]
# The offer may work better in a village because more people come, or because it helps those who come more.
# `ComplierEffect` has both, for every place. Its averages adjust for images and covariates, so that they differ a
# little from the differences in means above.

# %%
compliers = causalsat.image_model(study, causalsat.ComplierEffect(modifiers="img*"), n_components=8)
study.fit(compliers)
print(compliers[-1].summary())

# %%
folder = Path("outputs/take_up")
folder.mkdir(parents=True, exist_ok=True)
titles = {"itt": "Effect of the offer", "compliance": "Share of compliers", "complier": "Effect on compliers"}
figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
for ax, (what, title) in zip(axes, titles.items(), strict=True):
    path = folder / f"{what}.tif"
    causalsat.map_effects(compliers, study.imagery, what=what, resolution=240, out=path, title=title, progress=False)
    causalsat.plots.plot_map(path, title=title, ax=ax)
figure.savefig(folder / "maps.png", dpi=120)

# %% [markdown]
# The report is that of the offer, with take-up and the effect on compliers beside it.

# %%
written = analysis.write(folder, resolution=240, progress=False)
print(f"wrote {folder / 'maps.png'} and {len(written)} other files in {folder}")

# %% [markdown]
# How well do the conditional effects agree with the truth, which only a simulation knows? Half of the people carry no
# information on what the programme does, so that the images predict the effect on compliers less well than they would
# predict that of a programme which everybody takes up. The intervals of single villages are somewhat too narrow, as
# they are over many such trials.

# %%
table = causalsat.effect(compliers, study.X).to_dataframe(level=0.9).assign(truth=trial.units["tau"].to_numpy())
print(f"average effect on compliers {trial.truth['complier']:.2f}, of the offer {trial.truth['itt']:.2f}")
print(f"correlation of conditional effects with the true ones: {table['mean'].corr(table['truth']):.2f}")
print(f"90 % intervals that cover the true one: {table.eval('lower < truth < upper').mean():.0%}")
