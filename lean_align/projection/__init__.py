"""Random projection of gradients: phi = R g with E[<R x, R y>] = <x, y>, with R drawn as needed and never stored whole.

| kind | R | module |
| --- | --- | --- |
| `sjlt` | c non-zeros a column, +-1/sqrt(c) | `sjlt.py` |
| `rademacher` | dense, +-1/sqrt(k) | `rademacher.py` |
| `trak` | dense, drawn by traker, +-1/sqrt(k) | `trak.py` |

Differs from LearnAlign in: 1. the kind of projection is the recipe's; 2. `sjlt` and `rademacher` draw from streams
keyed by (seed, parameter name) (`streams.py`), the same on every device and for any block size or order.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lean_align.errors import RecipeError
from lean_align.projection.projector import Projector, StreamingProjector, project_parts
from lean_align.projection.rademacher import RademacherProjector
from lean_align.projection.sjlt import SjltProjector
from lean_align.projection.stacked import StackedProjector
from lean_align.projection.streams import STREAM_VERSION, splitmix64, stream_key
from lean_align.projection.trak import TrakProjector
from lean_align.recipe import GradientRecipe
from lean_align.rng import seed_for

__all__ = [
    "STREAM_VERSION",
    "Projector",
    "RademacherProjector",
    "SjltProjector",
    "StackedProjector",
    "StreamingProjector",
    "TrakProjector",
    "make_projector",
    "project_parts",
    "recipe_projector",
    "splitmix64",
    "stream_key",
]

SECOND_SEED = "second_seed"
"""Names the random stream that the second projection's seed is drawn from."""
FLAT = ""  # name of the one parameter of a projector made for a number of entries


def make_projector(
    kind: str,
    grad_dim: int | Mapping[str, int],
    proj_dim: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    nonzeros: int = 1,
) -> Projector:
    """Make a random projection with unbiased inner products.

    Parameters
    ----------
    kind : str
        `sjlt`, `rademacher` or `trak`; docs/method.md says which to choose when.
    grad_dim : int or mapping of str to int
        Number of gradient entries P, or the number for each parameter name.
    proj_dim : int
        Length of a projected row (k).
    seed : int
    device : torch.device or str
        Where the gradients are.
    nonzeros : int
        Non-zeros a column of `sjlt`, a divisor of proj_dim from 1 to 64; 1 for the other kinds.

    Returns
    -------
    Projector
        `project(G)` takes (n, P) to (n, k) in G's dtype; `sjlt` and `rademacher` have `add_to` too
        (StreamingProjector).  State in bytes: 5 P (`sjlt`, nonzeros = 1), near 0 (`sjlt` otherwise, `rademacher`),
        512 P (`trak` on a CPU).

    Raises
    ------
    RecipeError
        For an unknown kind, a proj_dim below 1, or nonzeros that do not fit.
    MissingPackageError
        For `trak` without traker, or on a CUDA device without fast_jl.
    """
    sizes = {FLAT: grad_dim} if isinstance(grad_dim, int) else grad_dim
    if kind == "sjlt":
        return SjltProjector(sizes, proj_dim, seed, device, nonzeros)
    if kind not in ("rademacher", "trak"):
        raise RecipeError(f"gradients.projection is {kind!r}; expected 'sjlt', 'rademacher' or 'trak'.")
    if nonzeros != 1:
        raise RecipeError(
            f"gradients.sjlt_nonzeros is {nonzeros} with gradients.projection {kind!r}, which is dense; "
            "expected 1. Leave gradients.sjlt_nonzeros out, or set gradients.projection to sjlt."
        )
    if kind == "rademacher":
        return RademacherProjector(sizes, proj_dim, seed, device)
    return TrakProjector(sizes, proj_dim, seed, device)


def recipe_projector(
    settings: GradientRecipe, sizes: Mapping[str, int], seed: int, device: torch.device | str = "cpu"
) -> tuple[Projector, dict[str, dict[str, object]]]:
    """A recipe's projection, and the fingerprint of each that it holds: with `second_seed` two lie side by side.

    Parameters
    ----------
    settings : GradientRecipe
    sizes : mapping of str to int
        Number of entries of each parameter.
    seed : int
        The recipe's.
    device : torch.device or str
    """
    seeds = {"projection": seed}
    if settings.second_seed:
        seeds["second_projection"] = seed_for(seed, SECOND_SEED) % 2**31
    kind, proj_dim, nonzeros = settings.projection, settings.proj_dim, settings.sjlt_nonzeros
    projectors = [make_projector(kind, sizes, proj_dim, each, device, nonzeros) for each in seeds.values()]
    fingerprints = {name: projector.fingerprint() for name, projector in zip(seeds, projectors)}
    return projectors[0] if len(projectors) == 1 else StackedProjector(projectors), fingerprints
