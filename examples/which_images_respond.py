# %% [markdown]
# # Which images respond
#
# A programme was randomised over villages, and a satellite image shows each village. Are there types of image, that
# is of place, in which it works better? Here the data are simulated with two types of scene, smallholdings and
# estates, and an effect of its own in each, so that what the model finds can be checked.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import causalsat
from causalsat import ImageEffectClusters
from causalsat.plots import plot_cluster_effects, plot_cluster_images, plot_cluster_map
from causalsat.report import Figure, Page, Section
from causalsat.simulate import satellite_trial

out = Path("outputs/which_images_respond")
out.mkdir(parents=True, exist_ok=True)
trial = satellite_trial("scene_types", n_units=1600, n_sites=200, seed=7)
imagery = causalsat.open_imagery(trial.imagery)
units = trial.units

# %% [markdown]
# The image of a village is of type k with a probability that depends on its features, and each type has its own
# effect. How many types there are is decided by how well villages are predicted that were held out; one type, no
# heterogeneity, can win. Random convolutional features need no training, which suits a few hundred images;
# `backbone="cnn"` starts a small network from them and trains it.

# %%
model = ImageEffectClusters(
    imagery=imagery,
    size_m=960,
    backbone="random_conv",
    covariates=["age", "female", "schooling", "household_size", "assets", "road_km"],
    max_clusters=3,
    random_state=0,
)
model.fit(units, units["outcome"], treatment="treatment", groups="site")
print(model.summary())

# %% [markdown]
# Densities of the effects; typical images of each type, with what in them makes them so; and where they are.

# %%
plot_cluster_effects(model, units="sd of the outcome").figure.savefig(out / "effects.png", dpi=120)
sheet = plot_cluster_images(model, units, n=3, bands=["red", "green", "blue"])
sheet.savefig(out / "images.png", dpi=120)
plot_cluster_map(model, units).figure.savefig(out / "map.png", dpi=120)
plt.close("all")

# %% [markdown]
# The same model says what to expect of villages outside the trial, and how much the trial says about places like them
# (`support`; below 0.05 the image is unlike nearly all of the trial's).

# %%
places = trial.places
effect, support = model.effect(places), model.support(places)
lower, upper = effect.interval(0.9).T
truth = places["tau"].to_numpy()
print(f"correlation with the true effect: {np.corrcoef(effect.mean(), truth)[0, 1]:.2f}")
print(f"90 % intervals that cover it: {np.mean((lower < truth) & (truth < upper)):.0%}")
print(f"places unlike the trial's: {np.mean(support < 0.05):.0%}")

# %% [markdown]
# What such a model can and cannot say about a real trial: Uganda's Youth Opportunities Program, 2,082 people at 327
# sites with Landsat images of 5 km (`python benchmarks/image_clusters_uganda.py`). With noise by arm, two types are
# chosen, with effects of 0.30 (90 % interval 0.07 to 0.52) and 1.18 (0.93 to 1.59) in the outcome's units, and an
# average of 0.72 beside a difference in means of 0.74 (standard error 0.08).
#
# Supported by the data: the average effect; and, if there are two types, that greener images, rivers among fields, go
# with larger effects than bare ones. Hardly supported: that there are types at all. The gain of two types over one on
# held-out sites is 7.1 units of log density with a standard error of 6.4, one standard error and no more, and three,
# four or five types do as well as two. Not supported: that greenness is the cause, since nobody randomised the
# images, which also differ by the date and season of the scene; the size of an effect outside the trial's region,
# where 15 % of the places have images unlike nearly all of the trial's; and anything read off types with a noise of
# their own (`noise="cluster"`). Two thirds of the people share the smallest outcome, so that such types become those
# of sites where hardly anybody had more; the held-out gain then rises to several hundred and the average effect to
# 1.2, and the model warns that this contradicts the regression.

# %%
pictures = {
    "Effects": ("effects", "Posterior of the effect of each type of image"),
    "Typical images": ("images", "Images most typical of each type, with the pixels that make them so"),
    "Where they are": ("map", "Places by their probability of the type with the largest effect"),
}
page = Page(
    "Which images respond",
    [f"{model.n_clusters_} types of image, chosen by held-out villages."],
    [Section(title, figures=[Figure(out / f"{name}.png", alt)]) for title, (name, alt) in pictures.items()]
    + [Section("The model", text=str(model.summary()))],
)
print(f"wrote {page.write(out / 'report.html')}")
