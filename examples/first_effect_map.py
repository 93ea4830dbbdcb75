# %% [markdown]
# # My first effect map
#
# A programme was randomised over villages. Where would it work best, among the trial's villages and in places where
# no trial ran? The data here are simulated, so that the answer can be checked at the end; for your own, replace the
# first line by
# `Study.from_file("survey.dta", outcome="income", treatment="arm", cluster="village", lon="lon", lat="lat",
# imagery=causalsat.open_imagery("raster.tif"))`.

# %%
import numpy as np

import causalsat

study = causalsat.load_study("simulated_trial")
print(study.check())

# %% [markdown]
# The model: random convolutional features of a square around each village, ten principal components of them, and a
# Bayesian regression in which they interact with the treatment. Covariates sharpen the estimate; the effect depends
# on the image only, so that it can be mapped.

# %%
analysis = causalsat.analyse(study, causalsat.image_model(study), n_permutations=199)
print(analysis)

# %% [markdown]
# Posterior effects of single villages, with intervals, as a table.

# %%
print(analysis.posterior.to_dataframe(level=0.9).head())

# %% [markdown]
# The map, the report and every figure of it; the last line names the files.

# %%
for path in analysis.write("outputs/first_effect_map", resolution=120):
    print(path)

# %% [markdown]
# Here the truth is known: how well do the effects mapped to places without a trial agree with it?

# %%
truth = causalsat.simulate.satellite_trial("smooth").places["tau"].to_numpy()
predicted = analysis.places.mean()
lower, upper = analysis.places.interval(0.9).T
print(f"correlation with the true effect: {np.corrcoef(predicted, truth)[0, 1]:.2f}")
print(f"90 % intervals that hold the true effect: {100 * np.mean((lower < truth) & (truth < upper)):.0f} %")
