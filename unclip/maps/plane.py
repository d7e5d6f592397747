"""From embeddings to a plane.

    pca     their two longest principal axes: where most of the variance is, the gap between the clouds or something else
    gap     across, from the pictures' mean to the captions'; upwards, the longest axis of what is left
    umap    UMAP (1802.03426), which keeps neighbours and no distances

Letters: N points, E embedding.
"""

import importlib
import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unclip.errors import ConfigError, RequestError
from unclip.maps.clouds import CAPTIONS, PICTURES, Cloud

Method = Literal["pca", "gap", "umap"]
Fit = Literal["all", "pictures", "captions", "prior"]
NAMES = {
    "pca": ("principal component 1", "principal component 2"),
    "gap": ("from the pictures' mean to the captions'", "principal component of what is left"),
    "umap": ("UMAP 1", "UMAP 2"),
}
NEIGHBOURS, APART = 15, 0.1  # UMAP's, as its paper and its library have them


class Plane(NamedTuple):
    """Where the points of each cloud lie, and what the two axes are called."""

    places: list[np.ndarray]  # (n, 2) each
    axes: tuple[str, str]


def lay(clouds: Sequence[Cloud], method: Method = "pca", *, fit: Fit = "all", seed: int = 0) -> Plane:
    """All clouds in one plane, which is that of all their points, or of the cloud called `fit`.

    RequestError for a cloud that is not there or has fewer than three points; ConfigError for UMAP that is not installed.
    """
    fitted = [cloud.points for cloud in clouds if fit in ("all", cloud.name)]
    if not fitted or sum(map(len, fitted)) < 3:
        names = ", ".join(cloud.name for cloud in clouds)
        raise RequestError(f"the plane of {fit}: expected a cloud of at least three points, there are {names}")
    sizes = [len(cloud.points) for cloud in clouds]
    points, names = torch.cat([cloud.points for cloud in clouds]), NAMES[method]
    if method == "umap":
        places = _umap(torch.cat(fitted), points, seed)
    else:
        x = torch.cat(fitted).double()
        axes, shares = principal_axes(x - x.mean(dim=0), _across(clouds) if method == "gap" else None)
        places = ((points.double() - x.mean(dim=0)) @ axes.T).numpy()
        names = [f"{name} ({share:.0%} of the variance)" for name, share in zip(names, shares, strict=True)]
    return Plane(np.split(places, np.cumsum(sizes)[:-1]), (names[0], names[1]))


def principal_axes(x: Tensor, across: Tensor | None = None) -> tuple[Tensor, list[float]]:
    """The two longest principal axes (2, E) of x (N, E), which is centred, and their shares of its variance.

    With `across`, a unit vector (E,), that is the first, and the second is the longest of what is left. Of an axis and its
    opposite it is the one whose largest number is positive, so that a map does not flip.
    """
    axes = _longest(x, 2) if across is None else torch.stack([across, *_longest(x - torch.outer(x @ across, across), 1)])
    variances = (x @ axes.T).square().sum(dim=0) / x.square().sum().clamp(min=torch.finfo(x.dtype).tiny)
    return axes, variances.tolist()


def _longest(x: Tensor, count: int) -> Tensor:
    """(count, E)."""
    axes = torch.linalg.eigh(x.T @ x).eigenvectors.T.flip(0)[:count]
    return axes * axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()


def _across(clouds: Sequence[Cloud]) -> Tensor:
    """The direction (E,) from the pictures' mean to the captions'."""
    means = {cloud.name: cloud.points.double().mean(dim=0) for cloud in clouds}
    if CAPTIONS not in means:
        raise RequestError("the method gap shows how far captions lie from pictures, and there are no captions: take pca")
    return torch.nn.functional.normalize(means[CAPTIONS] - means[PICTURES], dim=0)


def load_umap() -> Any:
    """umap-learn's reducer; ConfigError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImportWarning)  # it says that TensorFlow is not there
            return importlib.import_module("umap").UMAP
    except ImportError:
        raise ConfigError("--method umap needs umap-learn: install unclip[map], or take pca") from None


def _umap(fitted: Tensor, points: Tensor, seed: int) -> np.ndarray:
    """(N, 2); the points are the fitted ones, or are laid among them."""
    how = {"n_neighbors": min(NEIGHBOURS, len(fitted) - 1), "min_dist": APART, "metric": "cosine", "init": "pca"}
    reducer = load_umap()(**how, random_state=seed % (1 << 32), n_jobs=1)
    laid = reducer.fit_transform(fitted.numpy())
    return np.asarray(laid if len(fitted) == len(points) else reducer.transform(points.numpy()), dtype=np.float64)
