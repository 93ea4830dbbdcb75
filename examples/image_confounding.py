# %% [markdown]
# # Did the programme work, or did it go to the better places?
#
# Nobody randomised this programme. It went to villages whose land looked promising, and promising land yields more
# with or without a programme: comparing villages with and without it mixes the two. What the officers saw when they
# chose, a satellite sees too, so the image can be adjusted for. The data are simulated (greener villages are treated
# more often, and are better off), so that the answer can be checked at the end.

# %%
from pathlib import Path

import matplotlib.pyplot as plt

import causalsat
from causalsat.plots import plot_ate, plot_balance, plot_overlap, plot_propensity_salience, plot_sensitivity
from causalsat.report import Figure, Page, Section

trial = causalsat.simulate.satellite_trial("confounded", n_sites=200, seed=1)
units, imagery = trial.units, causalsat.open_imagery(trial.imagery)
covariates = ["age", "female", "schooling", "household_size", "assets", "road_km"]
print(units[["outcome", "treatment", "site", *covariates]].describe().round(2))

# %% [markdown]
# The estimator reads a square of 960 m around each village, turns it into features without looking at outcomes, and
# predicts from them (and the survey's covariates) who is treated and what the outcome is, for each village from other
# villages. `groups` says that villages, not people, are the clusters.

# %%
model = causalsat.ImageConfounding(imagery=imagery, size_m=960, covariates=covariates)
model.fit(units, units["outcome"], treatment="treatment", groups="site")
print(model.summary())

# %% [markdown]
# Does the survey alone remove the bias? Adjusting for the covariates without the image says how much the image adds.

# %%
survey = units[[*covariates, "treatment", "site"]]
tabular = causalsat.DoublyRobustEffect(propensity_model="logistic")
tabular.fit(survey, units["outcome"], treatment="treatment", groups="site")
truth = units["tau"].mean()
table = model.estimates().rename({"ATE, AIPW": "AIPW, image and covariates", "ATE, Hajek IPW": "Hajek IPW"})
table.loc["AIPW, covariates only"] = vars(tabular.ate_)
print(
    table.loc[[*table.index[:1], table.index[-1], *table.index[1:-1]], ["estimate", "se", "lower", "upper"]].round(3)
)
print(f"true average effect: {truth:.3f}")

# %% [markdown]
# Before believing an adjusted number: are there comparable villages in both arms (overlap), and does weighting make
# the arms alike (balance)? The latents are principal components of the image features.

# %%
out = Path("outputs/image_confounding")
out.mkdir(parents=True, exist_ok=True)
print(model.balance_.to_dataframe().round(2))
plot_balance(model.balance_).figure.savefig(out / "balance.png", dpi=120)
overlap = causalsat.evaluation.overlap(model.nuisances_.propensity, units["treatment"])
print(overlap.to_dataframe().round(2))
plot_overlap(model.nuisances_.propensity, units["treatment"]).figure.savefig(out / "overlap.png", dpi=120)
plot_ate(table, title="Effect of the programme").figure.savefig(out / "estimates.png", dpi=120)

# %% [markdown]
# What drives the propensity? The table says which covariates, the figure which parts of the images: blue places make
# treatment likelier.

# %%
print(model.salience_table().round(3))
villages = units.drop_duplicates("site").iloc[[0, 40, 80, 120]]
chips = causalsat.chips(imagery, villages, size_m=960)
salience = model.salience(villages)
chance = model.predict_propensity(villages)
labels = [f"propensity {value:.2f}" for value in chance]
rgb = [imagery.bands.index(band) for band in ("red", "green", "blue")]
plot_propensity_salience(chips, salience, rgb=rgb, labels=labels).savefig(out / "salience.png", dpi=120)

# %% [markdown]
# What of a confounder that the image does not show? The robustness value is how much of the residual variance of both
# treatment and outcome it would have to explain to bring the estimate to zero; the benchmarks say what that means, in
# multiples of what we do observe.

# %%
print(f"robustness value: {model.sensitivity_.robustness_value():.2f}")
print(f"robustness value at 5 %: {model.sensitivity_.robustness_value(alpha=0.05):.2f}")
print(model.sensitivity_.to_dataframe(times=(1.0, 2.0)).round(3).to_string())
plot_sensitivity(model.sensitivity_).figure.savefig(out / "sensitivity.png", dpi=120)
plt.close("all")

# %% [markdown]
# One page with all of it.

# %%
pictures = {
    "Estimates": ("estimates", "Effect by method with 95 % intervals"),
    "Balance": ("balance", "Differences of the arms, as observed and weighted"),
    "Overlap": ("overlap", "Distribution of the propensity by arm"),
    "What raises the propensity": ("salience", "Images, and the pixels that raise or lower the propensity"),
    "Sensitivity": ("sensitivity", "What an omitted confounder would leave of the effect"),
}
page = Page(
    "Did the programme work, or did it go to the better places?",
    [f"Adjusted for the image: {model.ate_.estimate:.2f} ({model.ate_.lower:.2f} to {model.ate_.upper:.2f})."],
    [Section(title, figures=[Figure(out / f"{name}.png", alt)]) for title, (name, alt) in pictures.items()]
    + [Section("The model", text=str(model.summary()))],
)
print(f"wrote {page.write(out / 'report.html')}")
print(f"the naive difference is off by {model.naive_.estimate - truth:+.2f}, the adjusted by", end=" ")
print(f"{model.ate_.estimate - truth:+.2f}; its 95 % interval is {model.ate_.lower:.2f} to {model.ate_.upper:.2f}")
