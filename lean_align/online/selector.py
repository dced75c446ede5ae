"""Which prompts a training meets next: drawn step by step from what the training itself has found out.

At step t the value of prompt i is V~_i E[a_i]: V~_i = p (1 - p) of a draw of p from its posterior (`posterior`), and
E[a_i] its alignment with the mean direction of the prompts met (`direction`), where rows are kept.  A prompt without a
row has the mean alignment; where that is not above 0, and without rows, the value is V~_i alone.  The step's order is
drawn from the values (`sampling`): Thompson sampling, with a share of exploration.

Noise is a function of (seed, stage, step), so that the order of a step is a function of the state alone.

Sources: LearnAlign, arXiv 2506.11480, for V <u, m>; Thompson sampling of prompts, MoPPS, arXiv 2507.04632.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lean_align.errors import DataError
from lean_align.files import canonical_json, text_hash
from lean_align.online.direction import MeanDirection
from lean_align.online.posterior import Prior, SuccessPosterior
from lean_align.online.sampling import StepOrder, draw_order
from lean_align.online.state_files import check_same, read_state, write_state
from lean_align.rng import rng_for


@dataclass(frozen=True)
class OnlineSettings:
    """How prompts are drawn.

    Attributes
    ----------
    discount : float
        What evidence keeps of its weight per step, in (0, 1]: half after 14 steps at 0.95.
    exploration : float
        Share of prompts that are drawn whatever their value, in [0, 1].
    prior_strength : float
        Completions that the pool's mean is worth as a prompt's prior, above 0.

    Raises
    ------
    DataError
        When one is out of its range.
    """

    discount: float = 0.95
    exploration: float = 0.1
    prior_strength: float = 2.0

    def __post_init__(self) -> None:
        if not (0 < self.discount <= 1 and 0 <= self.exploration <= 1 and 0 < self.prior_strength < float("inf")):
            raise DataError(
                f"discount is {self.discount}, exploration {self.exploration} and prior_strength "
                f"{self.prior_strength}; expected a discount in (0, 1], a share in [0, 1] and a strength above 0."
            )


class OnlineSelector:
    """The state of an online selection.

    Parameters
    ----------
    prompt_ids : sequence of str
        Of the pool, each once, in the order of all arrays.
    seed, stage : int, str
        What orders are drawn from.
    settings : OnlineSettings
    identity : mapping of str to str
        What else a state belongs to: the run, the pool's contents, the projection.  A state of another is refused.
    proj_dim : int, optional
        Length of rows, where they are kept.
    prior : Prior, optional
        A prediction of p; the pool's running mean without one.

    Raises
    ------
    DataError
        When the pool is empty or names a prompt twice, or the prior is of another pool.
    """

    def __init__(
        self,
        prompt_ids: Sequence[str],
        seed: int,
        stage: str,
        settings: OnlineSettings = OnlineSettings(),
        identity: Mapping[str, str] | None = None,
        proj_dim: int | None = None,
        prior: Prior | None = None,
    ) -> None:
        n = len(prompt_ids)
        if n == 0 or len(set(prompt_ids)) < n:
            raise DataError(f"the pool names {n} prompts, {len(set(prompt_ids))} of them distinct; expected each once.")
        self.prompt_ids, self.seed, self.stage, self.settings = tuple(prompt_ids), seed, stage, settings
        self.place_of = {prompt_id: place for place, prompt_id in enumerate(self.prompt_ids)}
        self.posterior = SuccessPosterior(n, settings.discount, settings.prior_strength, prior)
        self.direction = None if proj_dim is None else MeanDirection(n, proj_dim)
        self.identity = {
            **(identity or {}),
            "seed": str(seed),
            "stage": stage,
            "prompts": text_hash(canonical_json(self.prompt_ids)),
            "proj_dim": str(proj_dim),
            "prior": "pool mean" if prior is None else text_hash(canonical_json([*prior.mean, *prior.strength])),
            "discount": str(settings.discount),
            "exploration": str(settings.exploration),
            "prior_strength": str(settings.prior_strength),
        }

    def __len__(self) -> int:
        return len(self.prompt_ids)

    def alignment(self, step: int) -> NDArray[np.float64] | None:
        """E[a] of each prompt at a step, (n,) float64; None where V alone counts."""
        if self.direction is None:
            return None
        rate = self.posterior.rate
        return self.direction.alignment(self.posterior.weights(step), rate * (1 - rate))

    def expected_score(self, step: int) -> NDArray[np.float64]:
        """E[V_i] E[a_i] of each prompt at a step, (n,) float64, or E[V_i] where V alone counts."""
        v, alignment = self.posterior.expected_learnability(step), self.alignment(step)
        return v if alignment is None else v * alignment

    def order(self, step: int) -> StepOrder:
        """The order in which a step, counted from 0, meets the pool."""
        rng = rng_for(self.seed, f"{self.stage}.online", step)
        v, alignment = self.posterior.draw_learnability(step, rng), self.alignment(step)
        return draw_order(v if alignment is None else v * alignment, self.settings.exploration, rng)

    def observe(
        self, step: int, place: int, rewards: Sequence[float], row: NDArray[np.floating[Any]] | None = None
    ) -> None:
        """Take what a step has found out of a prompt.

        Parameters
        ----------
        step : int
            Counted from 0, not before that of the prompt's last visit.
        place : int
            Of the prompt in the pool.
        rewards : sequence of float
            Of its completions, in [0, 1].
        row : (k,) array, optional
            Its projected gradient; none where its rewards are equal.

        Raises
        ------
        DataError
            When the rewards are no success rates, the step is an earlier one, or the row is of another projection.
        """
        found = np.asarray(rewards, dtype=np.float64)
        if found.ndim != 1 or len(found) == 0 or not ((found >= 0) & (found <= 1)).all():
            raise DataError(
                f"prompt {self.prompt_ids[place]} has the rewards {list(rewards)[:8]}; expected one or more numbers in "
                "[0, 1], the share of success of each completion."
            )
        if step <= self.posterior.last[place]:
            raise DataError(
                f"step {step} met prompt {self.prompt_ids[place]}, which was last met in step "
                f"{self.posterior.last[place]}; expected each step's rewards once and in order."
            )
        if row is not None and self.direction is None:
            raise DataError("a row was given to an online selection that keeps none; expected proj_dim with it.")
        self.posterior.observe(step, place, found)
        if row is not None and self.direction is not None:
            self.direction.keep(place, row)

    @property
    def n_met(self) -> int:
        """Prompts that were met."""
        return int((self.posterior.last >= 0).sum())

    def state_dict(self) -> dict[str, Any]:
        """The state: `identity`, a mapping of texts, and `arrays`, copies by name."""
        posterior, arrays = self.posterior, dict[str, NDArray[Any]]()
        arrays |= {"right": posterior.right, "wrong": posterior.wrong, "rate": posterior.rate, "last": posterior.last}
        if self.direction is not None:
            arrays |= {"has_row": self.direction.has_row, "rows": self.direction.rows[self.direction.has_row]}
        return {"identity": dict(self.identity), "arrays": {name: found.copy() for name, found in arrays.items()}}

    def load_state_dict(self, state: Mapping[str, Any], source: str = "the state") -> None:
        """Go on from a state.

        Parameters
        ----------
        state : mapping
            As `state_dict` gives it.
        source : str
            Where it is from, for the message.

        Raises
        ------
        DataError
            When it is of another run, pool, projection, seed or setting.
        """
        check_same(state["identity"], self.identity, source)
        arrays = {name: np.array(found) for name, found in state["arrays"].items()}
        posterior = self.posterior
        posterior.right, posterior.wrong = arrays["right"], arrays["wrong"]
        posterior.rate, posterior.last = arrays["rate"], arrays["last"]
        if self.direction is not None:
            self.direction.has_row = arrays["has_row"]
            self.direction.rows = np.zeros_like(self.direction.rows)
            self.direction.rows[self.direction.has_row] = arrays["rows"]

    def save(self, folder: Path) -> None:
        """Write the state to a folder, which is whole or not there."""
        write_state(folder, self.state_dict())

    def load(self, folder: Path) -> None:
        """Go on from the state in a folder.

        Raises
        ------
        DataError
            When it is missing, damaged, or another's.
        """
        self.load_state_dict(read_state(folder), str(folder))
