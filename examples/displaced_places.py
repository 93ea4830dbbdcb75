# %% [markdown]
# # The survey moved its villages by up to a kilometre
#
# To protect respondents, surveys displace their coordinates: those of the Demographic and Health Surveys by up to 2
# km in towns and 5 km elsewhere. Images are then read at the wrong place. What does that cost, and what can be done?
# The data are simulated: here the true places are known too.

# %%
from pathlib import Path

import geopandas as gpd
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import causalsat
from causalsat.evaluation import location_error_cost
from causalsat.report import Figure, Page, Section, Table

trial = causalsat.simulate.satellite_trial("smooth", n_units=2500, n_sites=140, size_px=512, seed=3).draw_outcomes(5)
exact = trial.study()
radius = 1000  # metres

# %% [markdown]
# Before any fit: how much of the images' signal is left, by the radius of displacement and the size of the chip that
# is read around each place? `kept` is the share of the features' variance that is left after they are averaged over
# all places where a village may be; `at the stated place` is what is left without averaging.

# %%
rows = {}
for size_m in (exact.chip_size_m, 2 * exact.chip_size_m):
    for metres in (500, radius, 2000):
        cost = location_error_cost(exact.imagery, metres, places=exact.units, size_m=size_m)
        rows[size_m, metres] = {"kept": cost.kept, "at the stated place": cost.kept_at_point}
print(pd.DataFrame(rows).T.rename_axis(["chip in m", "displaced by up to, m"]).round(2))

# %% [markdown]
# Move every village as such surveys do: in any direction, by a distance that is uniform up to the radius.

# %%
rng = np.random.default_rng(2)
village = pd.Categorical(exact.groups).codes
angle, far = 2 * np.pi * rng.random(village.max() + 1)[village], radius * rng.random(village.max() + 1)[village]
points = exact.units.to_crs(exact.imagery.crs).geometry
moved = gpd.GeoSeries.from_xy(points.x + far * np.cos(angle), points.y + far * np.sin(angle), crs=points.crs)
units = exact.units.to_crs(points.crs).set_geometry(moved.set_axis(exact.units.index))

# %% [markdown]
# Three studies: true places, displaced ones taken at their word, and displaced ones that the package knows of. With
# `location_error=` features are averaged over where a village may be, and the check says what that costs.

# %%
studies = {
    "true places": exact,
    "displaced, not said": exact.replace(units=units),
    "location_error=": exact.replace(units=units, location_error=radius),
}
print(studies["location_error="].check())

# %% [markdown]
# Predict two sets of places: the trial's own villages, at the coordinates that the study has, and settlements without
# a trial, whose true places are known. `scope="place"` asks for the effect at the place itself.


# %%
def agreement(effects, truth):
    """Correlation with the true effects, and how wide and how right the 90 % intervals are."""
    table = effects.to_dataframe(level=0.9).assign(truth=np.asarray(truth))
    return {
        "correlation": table["mean"].corr(table["truth"]),
        "interval covers": table.eval("lower < truth < upper").mean(),
        "width": (table["upper"] - table["lower"]).mean(),
    }


rows, models = {}, {}
for name, study in studies.items():
    models[name] = causalsat.image_model(study, causalsat.DoublyRobustEffect(modifiers="img*"), n_components=8)
    study.fit(models[name])
    own = causalsat.effect(models[name], study.X, scope="place")
    other = causalsat.effect(models[name], exact.places, scope="place")
    rows["trial's villages", name] = agreement(own, trial.units["tau"])
    rows["other settlements", name] = agreement(other, trial.places["tau"])
print(pd.DataFrame(rows).T.sort_index(ascending=False).round(2))

# %% [markdown]
# At a displaced coordinate the image is that of somebody else's village: the correlation falls, and intervals that do
# not know of it cover the true effect too rarely. With `location_error=` they are wider and cover it. Where true
# places are predicted, less is lost: the model is less sure, and the pattern of the map stays. Much of the second map
# is hatched, as unlike the trial, because images that are averaged over where a village may be differ less than those
# of single places.

# %%
folder = Path("outputs/displaced_places")
folder.mkdir(parents=True, exist_ok=True)
shown = {"true places": "Fitted at the true places", "location_error=": "Fitted to displaced places"}
figure, axes = plt.subplots(1, 2, figsize=(10.5, 5), layout="constrained")
for ax, (name, title) in zip(axes, shown.items(), strict=True):
    path = folder / f"{title.replace(' ', '_').lower()}.tif"
    causalsat.map_effects(models[name], exact.imagery, resolution=240, out=path, title=title, progress=False)
    causalsat.plots.plot_map(path, ax=ax).images[0].set_clim(-1.7, 1.7)  # one scale for both
figure.savefig(folder / "maps.png", dpi=120)
own = pd.DataFrame(rows).T.droplevel(0).iloc[::2]
table = Table.of(own, "The trial's villages, by what is known of their places")
maps = Figure(folder / "maps.png", "Effect at true and at displaced places")
page = Page(
    "Displaced places",
    [f"Coordinates moved by up to {radius:,} m."],
    [Section("Maps", tables=[table], figures=[maps])],
)
print(f"wrote {page.write(folder / 'report.html')}")
