# %% [markdown]
# # Wealth that a model predicted from images
#
# A wealth index predicted from satellite images is free for every household of a trial. Surveying costs money. Can
# the prediction be the outcome? The data are simulated: a model was trained elsewhere, it predicts wealth well, and
# the effect on its predictions is still the wrong number.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import causalsat
from causalsat.evaluation import linear_calibration, prediction_powered
from causalsat.plots import plot_ate

trial = causalsat.simulate.satellite_trial("smooth", n_units=2500, n_sites=140, size_px=512, seed=3).draw_outcomes(5)
rng, whole = np.random.default_rng(1), trial.study()
wealth = whole.y


def predict(outcome):
    """The best prediction from noisy features: pulled towards the mean, as every good prediction is."""
    return 0.6 * outcome + np.sqrt(0.24) * outcome.std() * rng.standard_normal(len(outcome))


predicted = predict(wealth)
print(f"correlation of prediction and wealth: {np.corrcoef(predicted, wealth)[0, 1]:.2f}")

# %% [markdown]
# One household in five is surveyed, drawn at random. The package cannot see that a column was predicted: say so.

# %%
surveyed = np.where(rng.random(len(wealth)) < 0.2, wealth, np.nan)
units = whole.units.assign(predicted_wealth=predicted, survey_wealth=surveyed).drop(columns="outcome")
study = whole.replace(
    units=units, outcome="predicted_wealth", outcome_predicted=True, outcome_labelled="survey_wealth"
)
print(study.check())

# %% [markdown]
# The row *prediction-powered* is the corrected effect. The row *predictions, uncorrected* is the effect on the
# predictions: too small by as much as predictions are pulled towards the mean, with an interval that looks precise.

# %%
model = causalsat.image_model(study, causalsat.DoublyRobustEffect(modifiers="img*"), n_components=8)
analysis = causalsat.analyse(study, model, n_permutations=199, progress=False)
print(analysis)

# %% [markdown]
# What the predictions add to the survey: compare the standard error of the corrected effect with that of the measured
# units alone.

# %%
print(analysis.predicted)

# %% [markdown]
# **Nothing was measured in the trial.** A calibration from elsewhere corrects the average, if predictions depend on
# the treatment only through wealth. Treatment that changes what images show and not wealth (new roofs) breaks this.

# %%
elsewhere = trial.draw_outcomes(99).study().y[:400]
line = linear_calibration(predict(elsewhere), elsewhere)
calibrated = prediction_powered(
    predicted, None, whole.treatment, whole.groups, strata=whole.design.strata, calibration=line
)
print(f"slope of the predictions {line.slope:.2f} (se {line.slope_se:.2f})")
print(calibrated)

# %% [markdown]
# Side by side with the truth, and with what a survey of everybody would have said, which only a simulation knows.

# %%
everybody = causalsat.analysis.average_effects(wealth, design=whole.design).loc["difference in means"]
columns = ["estimate", "lower", "upper"]
rows = {
    "truth": [trial.truth["ate"]] * 3,
    "everybody surveyed": list(everybody[columns]),
    **{name: list(row[columns]) for name, row in analysis.predicted.to_dataframe().iterrows()},
    "corrected (linear calibration)": list(calibrated.to_dataframe()[columns].iloc[0]),
}
table = pd.DataFrame(rows, index=columns).T.astype(float)
print(table.round(2))
ax = plot_ate(table, title="Average effect on wealth")

# %% [markdown]
# The report has every row, and the map is that of the effect on wealth, not on its prediction.

# %%
folder = Path("outputs/predicted_outcomes")
written = analysis.write(folder, resolution=240, progress=False)
ax.figure.savefig(folder / "averages.png", dpi=120, bbox_inches="tight")
plt.close("all")
print(f"wrote {len(written)} files in {folder}")
