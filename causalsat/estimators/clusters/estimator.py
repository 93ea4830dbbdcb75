"""Image effect clusters: types of image with effects of their own, and the probability that an image is of a type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from causalsat.base import Summary
from causalsat.core.inputs import FloatArray, check_whole_numbers
from causalsat.estimators.clusters import report
from causalsat.estimators.clusters.fit import Options, fit_model, type_probabilities
from causalsat.estimators.clusters.model import build_model
from causalsat.estimators.clusters.salience import salience
from causalsat.estimators.image_base import ImageEffectEstimator, ImageFitData, check_image_parameters
from causalsat.exceptions import DataError, ParameterError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ImageEffectClusters"]

ASSIGNMENTS = ("share", "image", "unit")


class ImageEffectClusters(ImageEffectEstimator):
    r"""Effects that differ between latent types of image (Jerzak, Johansson and Daoud 2023).

    An image M has shares :math:`\pi(M)` of K types, the softmax of a network's logits, the first of them 0. The
    outcome of unit i, treated (W = 1) or not, at site s is

    .. math:: Y_i = g(M_i) + (W_i - \tfrac12) \bar\tau + (W_i - \lambda) (\tau(M_i) - \bar\tau) + u_s + e_i, \quad
        \tau(M) = \sum_k \pi_k(M) \tau_k, \quad e_i \sim N(0, \sigma^2_W), \quad u_s \sim N(0, \omega^2)

    with a prognostic network g and the average effect :math:`\bar\tau` of a regression. Site effects are integrated
    out exactly (by quadrature where a site has several images). Effects are ordered, :math:`\tau_1 < \tau_2 <
    \ldots`. So the effect can be predicted at an image, with its uncertainty, where no trial ran. The pivot
    :math:`\lambda` between 0 and 1 is where along the treatment the outcomes of unlike images meet: at 0 they differ
    among the treated only (the paper's model), at 1 among the controls only, where treatment evens out what was
    unequal. So the model is the same whichever arm is called treated. In the paper's likelihood (``assignment``) an
    image is of one type Z, with probability :math:`\pi_k(M)`, and has the effect :math:`\tau_Z`; Z is summed over.

    Parameters
    ----------
    imagery : Imagery, optional
        What :func:`causalsat.open_imagery` returns, where X is a GeoDataFrame of places; chips need none.
    size_m : float, optional
        Side of the square around a place, in metres.
    n_clusters : int or "auto", default "auto"
        Number of types K. "auto": more than one where they predict the outcomes of held-out sites better than one
        does and pass a randomisation test at 5 %: that types which follow the image fit better than types which do
        not, by more than under treatments drawn anew (over clusters, within strata) with one effect for all. Of
        these, the smallest number up to ``max_clusters`` whose log predictive density of held-out sites is within
        ``margin`` standard errors of the best (of the paired difference over sites), or within 3. See Notes for what
        more than one type does not mean.
    max_clusters : int, default 5
        Largest number tried; the search ends before where two numbers in a row are no better than the best so far.
    backbone : str or transformer of chips, default "cnn"
        "cnn": a small convolutional network, trained on the likelihood above, which starts as random convolutional
        features with their last layer fitted and keeps that start where training does not help on held-out sites; a
        name of a convolutional torchvision model: that network, trained likewise from random weights; "random_conv":
        random convolutional features, which need no training, the fast path; or a transformer such as
        :class:`causalsat.TorchvisionEncoder`, which is fitted to the chips and not trained on outcomes; or one that
        is, and gives cross-fitted features, such as ``LearnedFilters(targets="effect", statistics=False)``.
    n_components : int, default 8
        Principal components of an encoder's features on which prognosis and logits depend linearly; each keeps its
        share of the features' variance, so that the last ones weigh little.
    covariates : sequence of str, default ()
        Columns of X (coordinates of chips along the unit) from which the outcome is residualised first, by a
        regression on treatment and covariates; missing values are imputed and flagged, and no unit is dropped.
    assignment : {"share", "image", "unit"}, default "share"
        "share": an image has a share :math:`\pi_k(M)` of each type, and its units the effect :math:`\sum_k \pi_k(M)
        \tau_k`. The mean outcome alone says what the types are, so that neither skewness nor zeros nor outliers make
        types. "image": the units of one image and site are of one type, with these probabilities, as in the paper;
        "unit": each unit is of its own type, as in the paper's likelihood for one unit an image, several times
        slower. With these two, the shape of the outcome's distribution tells types apart too: one that is far from
        normal makes types of its shape and not of effects, and can move the average, of which a warning tells.
    noise : {"arm", "cluster"}, default "arm"
        Whether the noise has a scale for each arm, or for each arm and type, as in the paper ("image" and "unit"
        only). The second makes types of the outcome's spread where it differs between places.
    image_px : int, default 32
        Larger chips are averaged down to this side before a trained network sees them.
    augment : bool, default True
        Flip, turn by quarters and shift images by up to two pixels in training.
    max_epochs, patience : int, default 40, 8
        Most epochs of a network, and epochs without a better loss on held-out sites after which it stops.
    batch_size : int, default 16
        Images in a training step.
    learning_rate : float, default 2e-3
        Of AdamW; the layers of the small network's start move at a twentieth of it.
    n_networks : int, default 1
        Networks trained for each fold from different starts, of which the best on held-out sites is kept.
    n_folds : int, default 5
        Folds over sites, for the choice of K and for the cross-fitting of trained networks.
    n_restarts : int, default 3
        Starts of the search for the posterior's mode.
    margin : float, default 1.0
        See ``n_clusters``; a larger margin gives fewer types.
    n_permutations : int, default 39
        Most assignments of the randomisation test of "auto"; 0 leaves it out, and one type is then a candidate like
        the others. Fewer are drawn where the test is lost before.
    n_draws, n_tune, n_chains : int, default 400, 300, 2
        Draws kept and tuning draws a chain, and chains.
    min_valid : float, default 0.5
        Share of valid pixels below which a unit's image is refused.
    checkpoint : str, optional
        Path that names begin with: each network's state is written there after each epoch, and a training that was
        killed goes on from there with the same result.
    device : str, default "auto"
        "auto" (GPU if there is one), "cpu", "cuda".
    random_state : int or None, default None
        Seed.
    progress : bool, default False
        Show progress bars of networks and sampler.

    Attributes
    ----------
    n_clusters_ : int
        Number of types.
    selection_ : Selection or None
        ``n_clusters, gain, se, chosen, p_value, weights``: held-out log predictive density over that of one type, the
        randomisation test, and the weights of the average over numbers of types.
    draws_ : dict of str to ndarray
        Posterior draws in units of the outcome: ``tau`` (draw, K), ``sigma`` (draw, arm, K), ``site_sd``,
        ``intercept``, ``prognostic`` (draw, d), ``logit`` (draw, K, 1 + d), ``pivot``, with the chosen number of
        types; ``ate``, the average effect over the training units, averaged over numbers of types.
    components_ : list of dict of str to ndarray
        The average over numbers of types: draws of ``tau`` and ``logit`` with each.
    reference_ : dict
        Difference in means and regression estimate of the average effect, each with cluster-robust standard error.
    scores_ : ndarray of shape (m, d)
        Features of the training images on which the last layer was fitted.

    Notes
    -----
    The posterior is that of effects, noise, site effects and the last layers (the weights of features in prognosis
    and logits), sampled by nutpie's NUTS on the marginal likelihood. Features are fixed: components of an untrained
    encoder, or the scores of trained networks, each of which has not seen the site that it scores, so that what a
    network has learned by heart shrinks away (for the small network beside the components that it started with). The
    uncertainty of a network's inner weights is not part of it.

    Where "auto" finds more than one type, effects at images (``effect``, ``predict``, maps) and the average effect
    are averaged over the numbers of at least two by their held-out densities (pseudo-Bayesian model averaging with a
    Bayesian bootstrap of the sites), so that their intervals know that the number was chosen. Tables of the types
    (``cluster_effects``, ``cluster_probabilities``) are given the chosen number. Where it finds one type, all images
    have one effect. These intervals are about the mean effect of images that look alike; what no feature shows of a
    place's own effect (a jump that the features only smooth, or heterogeneity that was not found) is in those of
    ``scope="place"``, which is learned from differences between clusters of units.

    More than one type says that images tell effects apart. It does not say that there are two kinds of place (a
    smooth effect is cut into types too), nor why effects differ, nor that places of one type are alike in anything
    but the effect. One type does not say that effects are equal: they may differ in what no image shows, which the
    test does not look for, or by less than the trial can tell.

    Priors, for an outcome of unit variance: effects normal around the average effect of a regression, with a variance
    of its squared standard error plus 1; noise log-normal around the arm's standard deviation with scale 0.3; weights
    of the features multivariate Student t with 4 degrees of freedom, of scale 1.5 in the logits (differences between
    types) and 0.25 in the prognosis; intercepts of the logits N(0, 1.5), pivot uniform, site effects half-normal with
    scale 1.

    Treatment is taken as randomised, or as good as randomised given the covariates; a known propensity that varies
    is added to them. ``sample_weight`` enters as powers of the likelihood. Yes/no outcomes, whose effects are
    differences in the share of yes, need "share". Where a first run of the sampler diverges or does not mix, a
    second one is longer and takes smaller steps; where that fails too (more than a tenth of the draws divergent, or
    R-hat above 1.1) the fit ends in a :class:`~causalsat.exceptions.ConvergenceError`.

    References
    ----------
    Jerzak, C. T., Johansson, F. and Daoud, A. (2023). Image-based Treatment Effect Heterogeneity. Proceedings of the
    Second Conference on Causal Learning and Reasoning, PMLR 213, 531-552.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> kind = np.arange(60) % 2
    >>> images = rng.normal(size=(60, 2, 12, 12)) + kind[:, None, None, None]
    >>> village, t = np.repeat(np.arange(60), 5), np.repeat(np.arange(60) // 2 % 2, 5)
    >>> y = t * (0.5 + 2.0 * kind[village]) + rng.normal(size=300)
    >>> est = ImageEffectClusters(backbone="random_conv", n_clusters=2, random_state=0)
    >>> est = est.fit(images[village], y, treatment=t, groups=village)
    >>> bool(np.abs(est.cluster_effects()["mean"] - [0.5, 2.5]).max() < 0.5)
    True
    """

    _learns_places: ClassVar[bool] = True
    _contract_parameters: ClassVar[dict[str, Any]] = {
        "backbone": "random_conv",
        "n_clusters": 2,
        "n_components": 2,
        "n_draws": 100,
        "n_tune": 100,
        "n_restarts": 1,
        "random_state": 0,
    }

    def __init__(
        self,
        *,
        imagery: Any = None,
        size_m: float | None = None,
        n_clusters: int | str = "auto",
        max_clusters: int = 5,
        backbone: Any = "cnn",
        n_components: int = 8,
        covariates: Sequence[str] = (),
        assignment: str = "share",
        noise: str = "arm",
        image_px: int = 32,
        augment: bool = True,
        max_epochs: int = 40,
        patience: int = 8,
        batch_size: int = 16,
        learning_rate: float = 2e-3,
        n_networks: int = 1,
        n_folds: int = 5,
        n_restarts: int = 3,
        margin: float = 1.0,
        n_permutations: int = 39,
        n_draws: int = 400,
        n_tune: int = 300,
        n_chains: int = 2,
        min_valid: float = 0.5,
        checkpoint: str | None = None,
        device: str = "auto",
        random_state: Any = None,
        progress: bool = False,
    ) -> None:
        self.imagery = imagery
        self.size_m = size_m
        self.n_clusters = n_clusters
        self.max_clusters = max_clusters
        self.backbone = backbone
        self.n_components = n_components
        self.covariates = covariates
        self.assignment = assignment
        self.noise = noise
        self.image_px = image_px
        self.augment = augment
        self.max_epochs = max_epochs
        self.patience = patience
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.n_networks = n_networks
        self.n_folds = n_folds
        self.n_restarts = n_restarts
        self.margin = margin
        self.n_permutations = n_permutations
        self.n_draws = n_draws
        self.n_tune = n_tune
        self.n_chains = n_chains
        self.min_valid = min_valid
        self.checkpoint = checkpoint
        self.device = device
        self.random_state = random_state
        self.progress = progress

    def _check_parameters(self) -> None:
        check_image_parameters(self.imagery, self.size_m, self.covariates, self.min_valid)
        least = {"max_clusters": 1, "n_components": 1, "image_px": 8, "max_epochs": 1, "patience": 1, "batch_size": 1}
        least |= {
            "n_networks": 1,
            "n_folds": 2,
            "n_restarts": 1,
            "n_draws": 10,
            "n_tune": 50,
            "n_chains": 1,
            "n_permutations": 0,
        }
        check_whole_numbers(self, least)
        if self.n_clusters != "auto":
            check_whole_numbers(self, {"n_clusters": 1}, otherwise="'auto'")
        if self.assignment not in ASSIGNMENTS:
            raise ParameterError(f"assignment={self.assignment!r}", expected="'share', 'image' or 'unit'")
        if self.noise not in ("cluster", "arm"):
            raise ParameterError(f"noise={self.noise!r}", expected="'cluster' or 'arm'")
        for name in ("margin", "learning_rate"):
            if not getattr(self, name) >= 0:
                raise ParameterError(f"{name}={getattr(self, name)!r}", expected="a number of at least 0")
        if not isinstance(self.backbone, str) and not hasattr(self.backbone, "transform"):
            raise ParameterError(
                f"backbone is a {type(self.backbone).__name__}",
                expected="'cnn', 'random_conv', a torchvision model's name, or a transformer of chips",
            )

    def _check_outcome(self, y: Any, treatment: Any, n: int) -> FloatArray:
        outcome = super()._check_outcome(y, treatment, n)
        values = np.unique(outcome)
        if len(values) == 2 and self.assignment != "share":
            raise DataError(
                f"a yes/no outcome ({values[0]:g} and {values[1]:g}) with assignment={self.assignment!r}",
                expected="an outcome that is a number: types would be made of its two values",
                todo="assignment='share', whose effects are differences in the share of yes",
            )
        return outcome

    # ------------------------------------------------------------------ fit
    def _fit(self, data: ImageFitData) -> None:  # type: ignore[override]
        options = Options(**{field.name: getattr(self, field.name) for field in fields(Options)})
        fitted = fit_model(data.in_content_order()[0], options)
        self.encoder_, self.scores_ = fitted.encoder, fitted.scores
        self.n_clusters_, self.selection_ = fitted.problem.n_clusters, fitted.selection
        self._model_data = fitted.problem
        self.draws_, self.diagnostics_, self.reference_ = fitted.draws, fitted.diagnostics, fitted.reference
        self.components_ = fitted.components
        self.unit_image_ = data.images.unit_image

    def _learn_places(self, data: ImageFitData) -> None:  # type: ignore[override]
        features = np.hstack([self.scores_[data.images.unit_image], data.X])
        super()._learn_places(replace(data, X=features))

    # ------------------------------------------------------------------ effects
    def _probabilities(self, features: FloatArray) -> FloatArray:
        """Draws (draw, K, unit) of the types' probabilities."""
        return type_probabilities(self.draws_["logit"], features)

    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        features, unit = np.unique(X[:, : self.n_image_features_], axis=0, return_inverse=True)
        components = getattr(self, "components_", [self.draws_])  # models of older versions know one number of types
        effect = np.concatenate(
            [np.einsum("skm,sk->sm", type_probabilities(part["logit"], features), part["tau"]) for part in components]
        )
        return np.asarray(effect[:, unit.ravel()] * (treatment - baseline))

    def _design_features(self, X: Any) -> tuple[FloatArray, NDArray[Any]]:
        design, index = self._check_predict(X, effect_only=True)
        return design[:, : self.n_image_features_], index

    def cluster_effects(self, level: float = 0.9) -> pd.DataFrame:
        """Effects of the types, one row a type: mean, sd, lower, upper, prob_positive, share.

        ``share`` is the mean probability of the type over the training units.
        """
        check_is_fitted(self, "encoder_")
        share = self._probabilities(self.scores_).mean(axis=0)[:, self.unit_image_].mean(axis=1)
        return report.effect_table(self.draws_["tau"], share, level)

    def cluster_probabilities(self, X: Any, level: float = 0.9) -> pd.DataFrame:
        """Probabilities of the types at each unit of X, with their posterior uncertainty.

        Returns
        -------
        DataFrame
            One row a unit; columns are pairs (type, statistic) with statistics mean, sd, lower and upper.
        """
        features, index = self._design_features(X)
        return report.probability_table(self._probabilities(features), index, level)

    def predict_cluster(self, X: Any) -> NDArray[np.int64]:
        """Most probable type of each unit, shape (n,), from 1 to K in the order of their effects."""
        features, _ = self._design_features(X)
        return np.asarray(self._probabilities(features).mean(axis=0).argmax(axis=0) + 1, dtype=np.int64)

    @property
    def map_layer_names_(self) -> tuple[str, ...]:
        """Bands of its map besides those of the effect: ``prob_cluster_1`` to K, then ``sd_cluster_1`` to K.

        The posterior mean and standard deviation of each type's probability; none for a single type.
        """
        k = int(self.n_clusters_)
        return tuple(f"{what}_cluster_{j}" for what in ("prob", "sd") for j in range(1, k + 1)) if k > 1 else ()

    def map_layers(self, X: Any) -> FloatArray:
        """Values of :attr:`map_layer_names_` at each unit, shape (n, 2 K)."""
        features, _ = self._design_features(X)
        probability = self._probabilities(features)
        return np.concatenate([probability.mean(axis=0), probability.std(axis=0, ddof=1)]).T

    def unit_variance(self, X: Any) -> pd.DataFrame:
        """What an individual's effect may vary by: columns effect, within, between, posterior, sd.

        ``within`` is the noise of the two potential outcomes, the sum of both arms' noise variances, ``between`` the
        variance of the types' effects under the unit's probabilities (0 where the image has shares of the types),
        ``posterior`` the variance of the conditional effect; ``sd`` the root of their sum.
        """
        features, index = self._design_features(X)
        draws, shares = self.draws_, self.assignment == "share"
        return report.variance_table(
            self._probabilities(features), draws["tau"], draws["sigma"], index, shares=shares
        )

    def typical_images(
        self, X: Any, cluster: int, *, n: int = 6, kind: str = "most", min_distance_m: float = 1000.0
    ) -> NDArray[np.int64]:
        """Positions in X of distinct images that are typical of a type, or uncertain.

        Parameters
        ----------
        X : chips or GeoDataFrame
            Where to look.
        cluster : int
            Type, from 1 to K.
        n : int
            At most this many.
        kind : {"most", "least", "uncertain"}
            Highest or lowest mean probability of the type, or largest posterior standard deviation of it.
        min_distance_m : float
            Least distance between two of them, where X is a GeoDataFrame.
        """
        check_is_fitted(self, "encoder_")
        position = report.check_cluster(cluster, self.n_clusters_)
        features, _ = self._design_features(X)
        return report.typical_images(
            self._probabilities(features)[:, position],
            features,
            report.metres_of(X),
            n=n,
            kind=kind,
            min_distance_m=min_distance_m,
        )

    def read_chips(self, X: Any) -> NDArray[np.float32]:
        """Chips (n, [time,] band, y, x) of the units of X, NaN where invalid: what the model sees, for pictures."""
        return self._read_unit_chips(X)

    def salience(
        self, X: Any, cluster: int, *, method: str = "integrated_gradients", n_steps: int = 32
    ) -> FloatArray:
        """How much each pixel and band raises the log probability of a type (captum).

        Parameters
        ----------
        X : chips (n, band, y, x) or GeoDataFrame
            Images to explain.
        cluster : int
            Type, from 1 to K.
        method : {"integrated_gradients", "gradient"}
            From the average image to this one, or the derivative at it.
        n_steps : int
            Steps of the integral.

        Returns
        -------
        ndarray of shape (n, band, y, x)
            Contributions with their sign, in units of log probability (for "gradient", per standard deviation of
            the band). Integrated gradients add up to the difference from the average image, up to the error of the
            integral.
        """
        check_is_fitted(self, "encoder_")
        position = report.check_cluster(cluster, self.n_clusters_)
        return salience(
            self.encoder_,
            self.draws_["logit"],
            position,
            self._read_unit_chips(X),
            method=method,
            n_steps=n_steps,
            device=self.device,
        )

    def to_pymc(self) -> Any:
        """Return the model in PyMC with the data of the fit, to be read, plotted, extended and sampled.

        Features are fixed, the outcome is residualised and standardised, types are summed over. The fit itself
        samples a faster density, which equals it with the site effects integrated out
        (:mod:`causalsat.estimators.clusters.density`).

        Returns
        -------
        pymc.Model

        Raises
        ------
        DataError
            If the estimator was loaded or copied, which leaves the training data out.
        """
        problem = self._fit_data()
        return build_model(problem.cells, problem.scores, problem.prior, problem.n_clusters)

    # ------------------------------------------------------------------ reports
    def _diagnostics(self) -> dict[str, Any]:
        return dict(self.diagnostics_)

    def _summary(self) -> Summary:
        table = report.summary_table(self.draws_, self.cluster_effects(0.9))
        info: dict[str, Any] = {"units": self.n_units_, "images": self.n_images_, "groups": self.n_groups_}
        info |= {name: f"{value:.4g} (se {se:.4g})" for name, (value, se) in self.reference_.items()}
        if self.selection_ is not None:
            info["held-out log density over one cluster"] = report.selection_text(self.selection_)
            p_value = getattr(self.selection_, "p_value", np.nan)
            if np.isfinite(p_value):
                info["randomisation test that images tell effects apart"] = f"p = {p_value:.3g}"
        notes = [
            "90 % equal-tailed intervals; share is the mean probability of a type over the training units",
            "posterior of effects, noise and last layers given fixed features; rows of clusters given their number",
            *report.meaning(self.n_clusters_, getattr(self.selection_, "weights", {})),
        ]
        return Summary(
            f"{type(self).__name__} (K = {self.n_clusters_})", table, {**info, **self._diagnostics()}, tuple(notes)
        )
