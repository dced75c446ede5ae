"""Random integers as a function of (seed, parameter name, stream, position): a counter-based generator.

SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195) mixes a counter, so output i needs no
output before it: the same integers on every device, whatever the block size or the order of the parameters.
"""

from __future__ import annotations

import hashlib

import torch

STREAM_VERSION = 1

_GOLDEN_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def stream_key(seed: int, name: str, stream: str) -> int:
    """Signed 64-bit key of one stream: the first 8 bytes of SHA-256 over version, seed, name and stream."""
    text = f"lean_align/projection/{STREAM_VERSION}/{seed}/{name}/{stream}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


def splitmix64(key: int | torch.Tensor, start: int, stop: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Outputs start .. stop - 1 of SplitMix64 with state `key`.

    Parameters
    ----------
    key : int, or (q,) int64
        64-bit state before the first output, taken as signed; several make a column each.
    start, stop : int
        Range of outputs, counted from 0.
    device : torch.device

    Returns
    -------
    (stop - start,) or (stop - start, q) int64
        The outputs' bits, as signed integers.  Multiplication wraps, as the generator needs.

    Notes
    -----
    Memory: 16 bytes an output, half of it returned.
    """
    counter = torch.arange(start + 1, stop + 1, dtype=torch.int64, device=device) * _GOLDEN_GAMMA
    z = counter + key if isinstance(key, int) else counter[:, None] + key
    scratch = torch.empty_like(z)
    z ^= logical_shift_right(z, 30, out=scratch)
    z *= _MIX_1
    z ^= logical_shift_right(z, 27, out=scratch)
    z *= _MIX_2
    z ^= logical_shift_right(z, 31, out=scratch)
    return z


def logical_shift_right(x: torch.Tensor, bits: int, out: torch.Tensor | None = None) -> torch.Tensor:
    """Shift int64 to the right, filling with zeros: torch's >> copies the sign bit downwards."""
    shifted = torch.bitwise_right_shift(x, bits, out=out)
    shifted &= (1 << (64 - bits)) - 1
    return shifted
