"""Signals of the policy itself that some selection methods rank by: how it responds to a prompt and its own
completions.

`likelihoods` gives the perplexity of the question and the instruction-following difficulty (IFD), `ratings` the marks
that the policy gives itself (SelectIT), `completion_features` a mean hidden state, `prompt_states` those of the prompt
alone.  All are taken without gradients at the policy that sampled the completions, none sees a gold answer, and a value
is the same however often the work was interrupted; but for those of the prompt alone, which are computed in batches, it
is also the same whatever the other prompts.
"""

from __future__ import annotations

from lean_align.signals.features import completion_features, feature_dim
from lean_align.signals.likelihoods import PromptLikelihoods, likelihoods, question_span
from lean_align.signals.prompts import prompt_state_dim, prompt_states
from lean_align.signals.ratings import RATING_PROMPTS, PromptRating, ratings, sentence_rating, token_rating
from lean_align.signals.states import HiddenStates, check_output_layer

__all__ = [
    "RATING_PROMPTS",
    "HiddenStates",
    "PromptLikelihoods",
    "PromptRating",
    "check_output_layer",
    "completion_features",
    "feature_dim",
    "likelihoods",
    "prompt_state_dim",
    "prompt_states",
    "question_span",
    "ratings",
    "sentence_rating",
    "token_rating",
]
