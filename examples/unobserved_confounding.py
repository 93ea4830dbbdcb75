# %% [markdown]
# # What if somebody unseen chose the treated?
#
# A programme went to households that a local officer picked. We know ten covariates of each household, and adjusting
# for them gives an effect; but the officer knew more than the survey: who is enterprising. Enterprising households
# were picked more often and would have done better anyway. The data are simulated, so the answer can be checked.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import causalsat
from causalsat.plots import plot_strength, plot_unobserved
from causalsat.report import Figure, Page, Section

world = causalsat.simulate.hidden_confounding(2000, strength=2.0, observed=2.0, seed=7)
X, y, t = world.X, world.outcome, world.treatment
base = causalsat.DoublyRobustEffect(propensity_model="logistic")
naive = base.fit(X, y, treatment=t).effect(X).ate()
print(f"adjusted for what was measured: {float(naive):.2f} {naive.interval(0.9)[0].round(2)}")

# %% [markdown]
# VLUCI infers a confounder from the *shapes* of the data (a logit for who was picked, noise in the outcome that has
# one shape in both arms), and hands draws of it to the same estimator as a further covariate. Read its assumptions
# before its numbers: they are in the class's documentation.

# %%
model = causalsat.VLUCI(base, n_imputations=8, n_grid=7, random_state=0).fit(X, y, treatment=t)
print(model.summary())
ate = model.effect(X).ate()
print(f"with the inferred confounder: {float(ate):.2f} {ate.interval(0.9)[0].round(2)}")
print(f"true average effect: {world.tau.mean():.2f}")

# %% [markdown]
# How would the answer change with the strength of the unobserved? Larger dots are strengths of a higher likelihood.

# %%
out = Path("outputs/unobserved_confounding")
out.mkdir(parents=True, exist_ok=True)
plot_strength(model.strength_curve()).figure.savefig(out / "strength.png", dpi=120)

# %% [markdown]
# And with the prior: with what probability we believe in a confounder at all, and how strongly it may move the
# treatment compared with what was measured.

# %%
table = model.sensitivity(X, y, treatment=t, link_scales=(0.5, 2.0), prior_confounding=(0.0, 1.0))
print(table.round(2))
plot_unobserved(table).figure.savefig(out / "sensitivity.png", dpi=120)

# %% [markdown]
# A negative control: an outcome of the year before, which enterprise moves and the programme cannot have. Adjusted
# for X alone the programme seems to have changed the past.

# %%
rng = np.random.default_rng(0)
before = X[:, 0] + 2 * world.confounder[:, 0] + rng.standard_normal(len(X))
control = model.negative_control(X, before, treatment=t)
print(control.round(2))

# %% [markdown]
# One page with all of it.

# %%
plt.close("all")
pictures = {
    "Strength": ("strength", "Average effect at each strength of unobserved confounding"),
    "Sensitivity": ("sensitivity", "Average effect under other priors"),
}
page = Page(
    "What if somebody unseen chose the treated?",
    [f"Adjusted for X alone {float(naive):.2f}; with the inferred confounder {float(ate):.2f}."],
    [Section(title, figures=[Figure(out / f"{name}.png", alt)]) for title, (name, alt) in pictures.items()]
    + [
        Section("The model", text=str(model.summary())),
        Section("Negative control", text=control.round(2).to_string()),
    ],
)
print(f"wrote {page.write(out / 'report.html')}")
