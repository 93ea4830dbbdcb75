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
# The image of a village has a share of each type that depends on its features, and each type has its own effect. More
# than one type must predict villages better that were held out, and pass a randomisation test: that the image tells
# effects apart better than under treatments drawn anew. Random convolutional features need no training, which suits a
# few hundred images; `backbone="cnn"` starts a small network from them and trains it.

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
# sites with Landsat images of 5 km (`python benchmarks/image_clusters_uganda.py`). Two types are chosen, with effects
# of 0.11 (90 % interval -0.31 to 0.41) and 1.12 (0.91 to 1.38) in the outcome's units, and an average of 0.73 beside
# a difference in means of 0.74 (standard error 0.08).
#
# Supported by the data: the average effect; and that images tell effects apart (randomisation test, p = 0.025, the
# least that 39 assignments can give). Hardly supported: how many types there are. The gain of two types over one on
# held-out sites is 8 units of log density with a standard error of 6, and four or five types do as well or better, so
# that effects of places are averaged over these numbers. Not supported: that what the images show is the cause, since
# nobody randomised the images, which also differ by the date and season of the scene; and the size of an effect
# outside the trial's region, where 15 % of the places have images unlike nearly all of the trial's. Two thirds of the
# people share the smallest outcome. Types of images that are told apart by the outcome's distribution
# (`assignment="image"`, `noise="cluster"`) become those of sites where hardly anybody had more, with an average
# effect far from the difference in means, of which the model warns.

# %%
pictures = {
    "Effects": ("effects", "Posterior of the effect of each type of image"),
    "Typical images": ("images", "Images most typical of each type, with the pixels that make them so"),
    "Where they are": ("map", "Places by their probability of the type with the largest effect"),
}
page = Page(
    "Which images respond",
    [f"{model.n_clusters_} types of image, chosen by held-out villages and a randomisation test."],
    [Section(title, figures=[Figure(out / f"{name}.png", alt)]) for title, (name, alt) in pictures.items()]
    + [Section("The model", text=str(model.summary()))],
)
print(f"wrote {page.write(out / 'report.html')}")
