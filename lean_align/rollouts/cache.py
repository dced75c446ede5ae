"""Keys and values of the rows that are decoded together, in one buffer per layer that is made once.

A buffer is (slots, key-value heads, width, head_dim).  The rows share a clock t: at each step every row
writes column t.  A row that joins at time t gets the P columns of its prompt in [t - P, t), so row i holds
[start_i, t) and everything left of start_i is masked.  Rows fill slots 0 .. rows - 1 without gaps: when one
leaves, the last row moves into its slot.  When the clock reaches the buffer's end, everything is moved
left by the smallest start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

_SLACK = 32
"""Columns beyond the longest row, so that a move to the left comes at most every 32 steps."""


@dataclass
class _Extent:
    """The part of every layer's buffer in use: slots [0, rows), columns [first, clock)."""

    rows: int = 0
    first: int = 0
    clock: int = 0


class _SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's buffers, as transformers' models use a cache."""

    is_sliding = False
    supports_early_init = False

    def __init__(self, like: CacheLayerMixin, slots: int, width: int, extent: _Extent) -> None:
        super().__init__()
        self.extent, self.width = extent, width
        # zeros: a masked column has weight 0, and 0 times the NaN of unset memory is NaN
        self.keys = like.keys.new_zeros((slots, like.keys.shape[1], width, like.keys.shape[3]))
        self.values = like.values.new_zeros((slots, like.values.shape[1], width, like.values.shape[3]))
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: the buffers exist from the start."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write column t of every row, (rows, heads, 1, head_dim); return views of columns [first, t]."""
        rows, first, clock = self.extent.rows, self.extent.first, self.extent.clock
        self.keys[:rows, :, clock : clock + 1] = key_states
        self.values[:rows, :, clock : clock + 1] = value_states
        return self.keys[:rows, :, first : clock + 1], self.values[:rows, :, first : clock + 1]

    def get_seq_length(self) -> int:
        """Columns before this step's."""
        return self.extent.clock - self.extent.first

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that attention sees, and the offset of the first."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """Columns of the buffer."""
        return self.width

    def insert(self, prefilled: CacheLayerMixin, sources: list[int]) -> None:
        """Copy rows of a prefilled layer, (prompts, heads, P, head_dim), into the slots after the last row."""
        into = slice(self.extent.rows, self.extent.rows + len(sources))
        columns = slice(self.extent.clock - prefilled.keys.shape[2], self.extent.clock)
        self.keys[into, :, columns] = prefilled.keys[sources]
        self.values[into, :, columns] = prefilled.values[sources]

    def move(self, sources: list[int], targets: list[int]) -> None:
        """Copy rows of slots `sources` over those of slots `targets`."""
        columns = slice(self.extent.first, self.extent.clock)
        for buffer in (self.keys, self.values):
            buffer[targets, :, columns] = buffer[sources, :, columns]

    def shift(self) -> None:
        """Move the columns in use to the left end."""
        rows, length = self.extent.rows, self.get_seq_length()
        for buffer in (self.keys, self.values):  # a clone, since source and target overlap
            buffer[:rows, :, :length] = buffer[:rows, :, self.extent.first : self.extent.clock].clone()


class SlotCache(Cache):  # type: ignore[misc]
    """The cache of a batch whose rows come and go.

    Parameters
    ----------
    prefilled : Cache
        Tells number and shape of the layers.
    slots : int
        Most rows at the same time.
    longest : int
        Most columns of a row: prompt and completion.

    Attributes
    ----------
    starts : list of int
        First column of each row, slot by slot.
    shifts, moves : int
        How often columns were moved left, and rows to another slot.

    Notes
    -----
    Memory: slots x (longest + 32) x sum over layers of heads x head_dim x 2 numbers of the model's activations.
    """

    def __init__(self, prefilled: Cache, slots: int, longest: int) -> None:
        self.slots, self.width = slots, longest + _SLACK
        self.starts: list[int] = []
        self.shifts = self.moves = 0
        self._extent = _Extent()
        layers = [_SlotLayer(layer, slots, self.width, self._extent) for layer in prefilled.layers]
        super().__init__(layers=layers)

    @property
    def rows(self) -> int:
        """Rows at the moment."""
        return self._extent.rows

    def insert(self, prefilled: Cache, sources: list[int], lengths: Sequence[int]) -> None:
        """Let rows join at the current time.

        Parameters
        ----------
        prefilled : Cache
            Keys and values of prompts, padded on the left; no wider than the shortest row that is there.
        sources : list of int
            Row of `prefilled` that each new row begins with.
        lengths : sequence of int
            Tokens of each new row.
        """
        if not self.rows:
            self._extent.clock = prefilled.get_seq_length()
        for layer, source in zip(self.layers, prefilled.layers, strict=True):
            layer.insert(source, sources)
        self.starts += [self._extent.clock - length for length in lengths]
        self._measure()

    def keep(self, slots: Sequence[int]) -> list[int]:
        """Let all rows go except those in `slots`, in rising order.

        Returns
        -------
        list of int
            For each slot now in use, the slot where its row was.
        """
        holes = sorted(set(range(len(slots))) - set(slots))
        movers = [slot for slot in slots if slot >= len(slots)]
        if holes:
            for layer in self.layers:
                layer.move(movers, holes)
            self.moves += len(holes)
        came_from = dict(zip(holes, movers))
        order = [came_from.get(slot, slot) for slot in range(len(slots))]
        self.starts = [self.starts[slot] for slot in order]
        self._measure()
        return order

    def begin_step(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Make room for a column, and say what it sees.

        Returns
        -------
        attention_mask : (rows, columns) bool tensor
            Columns [first, t] that belong to each row.
        position_ids : (rows, 1) int64 tensor
            Place of the new token in its row.
        """
        if self._extent.clock == self.width:
            self._shift()
        first, clock = self._extent.first, self._extent.clock
        starts = torch.tensor(self.starts, device=device)[:, None]
        return torch.arange(first, clock + 1, device=device) >= starts, clock - starts

    def end_step(self) -> None:
        """Count the column that every row has written."""
        self._extent.clock += 1

    def skip_to_end(self) -> None:
        """Move the clock to the last column, as if every row had been decoded so far."""
        self._extent.clock = self.width - 1

    def _shift(self) -> None:
        for layer in self.layers:
            layer.shift()
        first = self._extent.first
        self.starts = [start - first for start in self.starts]
        self._extent.clock -= first
        self.shifts += 1
        self._measure()

    def _measure(self) -> None:
        self._extent.rows = len(self.starts)
        self._extent.first = min(self.starts, default=0)
