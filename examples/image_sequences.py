# %% [markdown]
# # Which images, which model, and is it real?
#
# A programme was randomised over villages, and there are images of two years. Does one image tell where it works
# best, or does it take both? Which model reads them better? And is what they find more than noise? The data are
# simulated: the effect follows how much greener a place became between the two dates, which no single image shows.

# %%
import matplotlib as mpl

mpl.use("Agg")
import numpy as np

import causalsat
from causalsat.simulate import satellite_trial

trial = satellite_trial("change", n_units=1200, n_sites=110, size_px=448, tau_sd=0.7, seed=11)
study = trial.study()
print(study.imagery)

# %% [markdown]
# ## The comparison
# Every source of features times every model, over folds of villages: each village is judged by models, encoders
# included, that never saw it. All are scored by the same doubly robust scores. Finished folds are kept in a folder:
# a run that was interrupted goes on where it stopped, and one more source costs only itself.

# %%
first, last = study.imagery.days
encoder = causalsat.RandomConvFeatures(n_features=64, statistics=True)


def images(imagery, encoder):
    return causalsat.ImageEncoder(imagery, study.chip_size_m, encoder, n_components=12)


found = causalsat.compare(
    study,
    sources={
        "covariates": "covariates",
        f"image of {first[:4]}": images(study.imagery.sel(dates=[first]), encoder),
        f"image of {last[:4]}": images(study.imagery.sel(dates=[last]), encoder),
        "both, as a sequence": images(study.imagery, causalsat.SequenceEncoder(encoder)),
    },
    models={
        "doubly robust": causalsat.DoublyRobustEffect(),
        "T-learner": causalsat.TLearnerEffect(n_bootstrap=20),
    },
    folder="outputs/image_sequences/folds",
    progress=False,
)
print(found)

# %% [markdown]
# The RATE ratio is the gain from treating first those with the largest predicted effects, in standard errors. The
# regression says what drives it, with standard errors from villages that all combinations have in common: no two of
# them are independent, since they are judged on the same people.

# %%
found.plot("rate_ratio", title="What detects heterogeneity").figure.savefig("outputs/image_sequences/compare.png")
print(found.drivers("rate_ratio").round(3))

# %% [markdown]
# ## What do places with large effects look like?
# Fifths of the villages by predicted effect, described by spectral indices and by their change between the dates.

# %%
print(found.quintiles("both, as a sequence", "doubly robust").round(3).T)

# %% [markdown]
# ## Is it real?
# The sequence won the comparison, but the winner of a comparison always looks good. The permutation test asks how
# often villages whose effects do not vary at all would show as much heterogeneity.

# %%
model = causalsat.image_model(
    study,
    causalsat.DoublyRobustEffect(modifiers="img*"),
    encoder=causalsat.SequenceEncoder(encoder),
    n_components=12,
)
analysis = causalsat.analyse(study, model, n_permutations=199, progress=False)
print(analysis.verdict())
for path in analysis.write("outputs/image_sequences", resolution=240, progress=False):
    print(path)

# %% [markdown]
# ## Districts
# Officials decide by district. The mean effect of a district is as uncertain as the model that all its cells share,
# so whole posterior draws are averaged within the polygons.

# %%
import geopandas as gpd
import shapely

west, south, east, north = study.imagery.bounds
x, y = np.linspace(west, east, 4), np.linspace(south, north, 4)
squares = [shapely.box(x[j], y[i], x[j + 1], y[i + 1]) for i in range(3) for j in range(3)]
districts = gpd.GeoDataFrame(geometry=squares, index=[f"district {k}" for k in range(9)], crs=study.imagery.crs)
means = causalsat.district_effects(model, study.imagery, districts, resolution=240, progress=False)
print(means.to_dataframe().round(3))
means.plot(title="Mean effect by district").figure.savefig("outputs/image_sequences/districts.png")

# %% [markdown]
# Here the truth is known: how much of the variation of the true effect, at places where no trial ran, is found?

# %%
truth = trial.places["tau"].to_numpy()
predicted = analysis.places.mean()
print(f"R2 of the sequence's effects: {1 - np.mean((predicted - truth) ** 2) / truth.var():.2f}")
