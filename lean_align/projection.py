"""Random projection of gradients: phi = R g with E[<R x, R y>] = <x, y>.

`sjlt` is the sparse Johnson-Lindenstrauss transform with one non-zero a column (a count sketch): entry
j of the gradient goes to bucket h(j) with sign s(j),

    phi[b] = sum over j with h(j) = b of s(j) g[j]

so a row costs O(P) and R is never stored.  h and s come from two streams of a counter-based generator
(SplitMix64, Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195) keyed by (seed, parameter name):
the same integers on every device, whatever the block size or the order of the parameters.

Differs from TRAK's projectors in: 1. one non-zero a column in place of a dense column of signs; 2. the
stream depends on the parameter's name, not on its place in a flat vector; 3. no compiled extension.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch

from lean_align.errors import RecipeError

STREAM_VERSION = 1
FLAT = ""

_GOLDEN_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_GENERATE_ROWS = 1 << 20  # entries hashed at a time: 8 bytes each, a few temporaries


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift: torch's >> on int64 copies the sign bit downwards."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def splitmix64(key: int, start: int, stop: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Outputs start .. stop - 1 of SplitMix64 with state `key`.

    Parameters
    ----------
    key : int
        64-bit state before the first output, taken as signed.
    start, stop : int
        Range of outputs, counted from 0.
    device : torch.device

    Returns
    -------
    (stop - start,) int64
        The outputs' bits, as signed integers.  Multiplication wraps, as the generator needs.
    """
    z = torch.arange(start + 1, stop + 1, dtype=torch.int64, device=device) * _GOLDEN_GAMMA + key
    z = (z ^ _shift_right(z, 30)) * _MIX_1
    z = (z ^ _shift_right(z, 27)) * _MIX_2
    return z ^ _shift_right(z, 31)


def stream_key(seed: int, name: str, stream: str) -> int:
    """Signed 64-bit key of one stream: the first 8 bytes of SHA-256 over version, seed, name and stream."""
    text = f"lean_align/projection/{STREAM_VERSION}/{seed}/{name}/{stream}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


class SjltProjector:
    """Count sketch of gradients given whole or parameter by parameter.

    Parameters
    ----------
    sizes : mapping of str to int
        Number of entries of each parameter.
    proj_dim : int
        Length of a projected row (k).
    seed : int
    device : torch.device or str

    Notes
    -----
    State is 5 bytes a gradient entry (an int32 bucket and an int8 sign): 92 MB for P = 18.5 million.
    """

    kind = "sjlt"
    batch_rows = 1

    def __init__(
        self, sizes: Mapping[str, int], proj_dim: int, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        if proj_dim < 1:
            raise RecipeError(f"proj_dim is {proj_dim}; expected at least 1.")
        self.sizes, self.proj_dim, self.seed, self.device = dict(sizes), proj_dim, seed, torch.device(device)
        self.grad_dim = sum(self.sizes.values())
        self._bucket = {name: self._make(name, "bucket", size) for name, size in self.sizes.items()}
        self._sign = {name: self._make(name, "sign", size) for name, size in self.sizes.items()}

    def _make(self, name: str, stream: str, size: int) -> torch.Tensor:
        key = stream_key(self.seed, name, stream)
        blocks = []
        for start in range(0, size, _GENERATE_ROWS):
            bits = splitmix64(key, start, min(start + _GENERATE_ROWS, size), self.device)
            if stream == "bucket":  # 32 high bits scaled to [0, k): no modulo, bias below k / 2**32
                blocks.append(((_shift_right(bits, 32) * self.proj_dim) >> 32).int())
            else:
                blocks.append((_shift_right(bits, 63) * 2 - 1).to(torch.int8))
        return torch.cat(blocks) if blocks else torch.empty(0, device=self.device)

    def add_to(self, row: torch.Tensor, name: str, gradient: torch.Tensor) -> None:
        """Add R restricted to parameter `name`, times `gradient`, to `row` in place.

        Parameters
        ----------
        row : (proj_dim,) float32 or float64
        name : str
            A key of `sizes`.
        gradient : any shape with sizes[name] entries
        """
        flat = gradient.reshape(-1).to(row.dtype)
        row.index_add_(0, self._bucket[name], flat * self._sign[name])

    def project(self, gradients: torch.Tensor) -> torch.Tensor:
        """Project flat gradients.

        Parameters
        ----------
        gradients : (n, P) or (P,) float32
            Entries in the order of `sizes`.

        Returns
        -------
        (n, proj_dim) or (proj_dim,) of the same dtype
        """
        if gradients.shape[-1] != self.grad_dim:
            raise ValueError(f"got gradients with {gradients.shape[-1]} entries; expected grad_dim = {self.grad_dim}.")
        matrix = gradients.reshape(-1, self.grad_dim)
        out = torch.zeros(len(matrix), self.proj_dim, dtype=matrix.dtype, device=matrix.device)
        for row, gradient in zip(out, matrix):
            offset = 0
            for name, size in self.sizes.items():
                self.add_to(row, name, gradient[offset : offset + size])
                offset += size
        return out.reshape(*gradients.shape[:-1], self.proj_dim)

    def fingerprint(self) -> dict[str, object]:
        """What two stores must share for their rows to be comparable."""
        return {
            "kind": self.kind,
            "proj_dim": self.proj_dim,
            "grad_dim": self.grad_dim,
            "seed": self.seed,
            "stream_version": STREAM_VERSION,
            "parameters": hashlib.sha256(repr(list(self.sizes.items())).encode()).hexdigest(),
        }


def make_projector(
    kind: str,
    grad_dim: int | Mapping[str, int],
    proj_dim: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> SjltProjector:
    """Make a random projection with unbiased inner products.

    Parameters
    ----------
    kind : str
        `sjlt`.
    grad_dim : int or mapping of str to int
        Number of gradient entries P, or the number for each parameter name.
    proj_dim : int
        Length of a projected row (k).
    seed : int
    device : torch.device or str

    Returns
    -------
    SjltProjector
        `project(G)` takes (n, P) to (n, k).

    Raises
    ------
    RecipeError
        For an unknown kind.
    """
    if kind != "sjlt":
        raise RecipeError(f"gradients.projection is {kind!r}; expected 'sjlt'.")
    sizes = {FLAT: grad_dim} if isinstance(grad_dim, int) else grad_dim
    return SjltProjector(sizes, proj_dim, seed, device)
