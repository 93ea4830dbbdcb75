# %% [markdown]
# # Somebody has already run the big model: can I use its embeddings?
#
# AlphaEarth and TESSERA publish rasters with 64 or 128 numbers a pixel, made by a network that I could not train.
# Reading them instead of the image skips the encoding. Three things go wrong silently: the numbers are stored as
# int8 and must be turned back, one int8 value means nodata, and an annual embedding may hold images from after the
# programme began. Here such rasters are simulated, so that the answer is known; yours come from the provider.

# %%
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio

import causalsat
from causalsat.imagery import open_embeddings
from causalsat.report import Figure, Page, Section, Table

out = Path("outputs/foundation_model_embeddings")
out.mkdir(parents=True, exist_ok=True)
trial = causalsat.simulate.satellite_trial("smooth", n_units=1200, n_sites=110, size_px=448, seed=6)

# %% [markdown]
# A stand-in for the foundation model: 64 numbers of length 1 a pixel, a fixed nonlinear function of the bands, stored
# as AlphaEarth's are (`sign(v) * 127.5 * sqrt(abs(v))` in int8, nodata -128). One file a year: the programme
# began in March 2008, and what it did to the land shows in 2008.

# %%
rng = np.random.default_rng(0)
image = trial.imagery
bands = image.to_numpy().reshape(image.shape[0], -1).astype(float)
standard = (bands - bands.mean(axis=1, keepdims=True)) / bands.std(axis=1, keepdims=True)
hidden = np.tanh(rng.normal(size=(64, len(standard))) @ standard + rng.normal(size=(64, 1)))
grid = {"driver": "GTiff", "count": 64, "height": image.shape[1], "width": image.shape[2], "tiled": True}
grid |= {"crs": image.rio.crs, "transform": image.rio.transform(), "compress": "deflate"}
for year in (2006, 2007, 2008):
    values = hidden + 0.05 * rng.normal(size=hidden.shape)
    values /= np.linalg.norm(values, axis=0)
    stored = np.rint(127.5 * np.sign(values) * np.sqrt(np.abs(values))).clip(-127, 127).astype(np.int8)
    stored[:, rng.random(stored.shape[1]) < 0.001] = -128
    with rasterio.open(out / f"embedding_{year}.tif", "w", dtype="int8", nodata=-128, **grid) as file:
        file.write(stored.reshape(64, *image.shape[1:]))

# %% [markdown]
# ## Opening them
# Providers disagree on how to undo the int8, as the square `sign(v) (|v| / 127.5)^2` or as `v / 127`. Embeddings
# have length 1, which decides: `open_embeddings` tries both on a sample, and refuses a file where neither gives 1.

# %%
embeddings = open_embeddings(out / "embedding_2007.tif")
window = embeddings.read_window(100, 100, 50, 50)
lengths = np.linalg.norm(window, axis=0)
print(embeddings.name, embeddings.days, f"{len(embeddings.bands)} bands")
print(f"formula {embeddings.formula!r}; lengths {np.nanmin(lengths):.3f} to {np.nanmax(lengths):.3f};", end=" ")
print(f"{np.isnan(lengths).mean():.2%} of the pixels are nodata")

# %% [markdown]
# ## Only from before the programme
# A folder of years is a sequence. An annual embedding counts as taken on the last day of its year, so that the year
# in which the programme began is left out. The check of a study says so where it is not.

# %%
years = open_embeddings(out, date_regex=r"embedding_(\d{4})")
before = years.images_before("2008-03-01")
print("years in the folder", years.days, "\nused               ", before.days)
study = trial.study().replace(treatment_date="2008-03-01")
late = study.replace(imagery=open_embeddings(out / "embedding_2008.tif")).check()
print(*(f"{finding.level}: {finding.what}" for finding in late.findings if "image" in finding.topic), sep="\n")

# %% [markdown]
# ## From embeddings to effects
# Little is left to encode: with patches of one pixel the encoder sees no texture of its own, and averages over the
# square around each village; principal components of that enter the model. The same model on the image is beside it.

# %%
image_study = trial.study()
studies = {"embedding of 2007": study.replace(imagery=embeddings), "image": image_study}
encoders = {
    "embedding of 2007": causalsat.RandomConvFeatures(n_features=32, patch_px=1, statistics=True),
    "image": causalsat.RandomConvFeatures(statistics=True),
}
truth = trial.places["tau"].to_numpy()
rows = {}
for name, one in studies.items():
    model = causalsat.image_model(
        one, causalsat.DoublyRobustEffect(modifiers="img*"), encoder=encoders[name], n_components=12
    )
    found = causalsat.analyse(one, model, n_permutations=199, progress=False)
    lower, upper = found.places.interval(0.9).T
    rows[name] = {
        "permutation p": found.permutation.p_value,
        "AUTOC ratio": found.autoc[0].ratio,
        "correlation with the truth": np.corrcoef(found.places.mean(), truth)[0, 1],
        "90 % intervals cover": np.mean((lower < truth) & (truth < upper)),
    }
    studies[name] = found
compared = pd.DataFrame(rows).T
print(compared.T.round(3))

# %% [markdown]
# The map from embeddings: the grid is the embeddings', and cells with too much nodata are left empty.

# %%
for path in studies["embedding of 2007"].write(out / "map", resolution=360, progress=False):
    print(path)

# %% [markdown]
# One page with all of it. A real foundation model knows more than the bands of one image, and may tell more, or less,
# about your outcome than they do: `compare(study, sources={...})` asks that of your own trial.

# %%
page = Page(
    "Can I use embeddings that somebody else has made?",
    [f"Stored by the formula {embeddings.formula!r}; years used: {', '.join(before.days)}."],
    [
        Section(
            "Embeddings and image, beside the truth",
            ["Effects of places without a trial."],
            [Table.of(compared, "Heterogeneity found, and its agreement with the truth")],
            [Figure(out / "map" / "effects.png", "Map of the effect, from embeddings")],
        )
    ],
)
print(f"wrote {page.write(out / 'report.html')}")
