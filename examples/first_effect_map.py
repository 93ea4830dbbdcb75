# %% [markdown]
# # My first effect map in ten lines
#
# A programme was randomised over villages. Where would it work best, among the trial's villages and in places where
# no trial ran? The data here are simulated, so that the answer can be checked at the end; for your own, replace the
# second line by
# `study = causalsat.Study.from_file("survey.dta", outcome="income", treatment="arm", cluster="village", lon="lon",
# lat="lat", imagery=causalsat.open_imagery("raster.tif"))`.

# %%
import causalsat

study = causalsat.load_study("simulated_trial")
print(study.check())

# %% [markdown]
# The model: random convolutional features of a square around each village, principal components of them, and a
# Bayesian regression in which they interact with the treatment. Covariates sharpen the estimate; the effect depends
# on the image only, so that it can be mapped. The analysis also asks whether the heterogeneity is real.

# %%
analysis = causalsat.analyse(study, n_permutations=199)
print(analysis)

# %% [markdown]
# Posterior effects of single people, with intervals, as a table; its `to_latex()` is for a paper.

# %%
print(analysis.posterior.to_dataframe(level=0.9).head())

# %% [markdown]
# The map, the report (as a page, as Markdown and as LaTeX) and every figure of it.

# %%
for path in analysis.write("outputs/first_effect_map", resolution=120):
    print(path)

# %%
causalsat.plots.plot_map("outputs/first_effect_map/effects.tif")

# %% [markdown]
# Here the truth is known: how well do the effects of places without a trial agree with it?

# %%
places = analysis.places.to_dataframe(level=0.9).assign(
    truth=causalsat.simulate.satellite_trial("smooth").places["tau"].to_numpy()
)
print(f"correlation with the true effect: {places['mean'].corr(places['truth']):.2f}")
print(f"90 % intervals that cover the true effect: {places.eval('lower < truth < upper').mean():.0%}")
