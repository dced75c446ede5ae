"""Which prompts can be among the best N, told from hidden states of the prompts and a few that were sampled.

`cover` takes a first share of the pool, `fit_ridge` predicts from it, and `forecast` gives every other prompt the
probability that it is among the best N.  Imports no torch.
"""

from __future__ import annotations

from lean_align.prediction.covering import cover
from lean_align.prediction.forecasting import Forecast, Known, ValueRule, forecast, measured_values, round_size
from lean_align.prediction.outlook import Outlook, TopChances, success_chances, top_chances
from lean_align.prediction.ridge import Ridge, fit_ridge, standardised

__all__ = [
    "Forecast",
    "Known",
    "Outlook",
    "Ridge",
    "TopChances",
    "ValueRule",
    "cover",
    "fit_ridge",
    "forecast",
    "measured_values",
    "round_size",
    "standardised",
    "success_chances",
    "top_chances",
]
