"""The projection's integers, pinned and computed a second time without torch, and its statistics.

Pinned because they are part of the store's format: a projection drawn otherwise makes old stores worthless.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lean_align import projection
from lean_align.errors import RecipeError
from lean_align.projection import SjltProjector, make_projector, splitmix64, stream_key

WORD = 2**64
Signs = NDArray[np.int64]


def reference_output(state: int, i: int) -> int:
    """Output i of SplitMix64 in Python's own integers, after Steele, Lea and Flood 2014, figure 14."""
    z = (state + (i + 1) * 0x9E3779B97F4A7C15) % WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % WORD
    return z ^ (z >> 31)


def reference_entry(seed: int, name: str, proj_dim: int, i: int) -> tuple[int, int]:
    """Bucket and sign of entry i: high 32 bits of one stream scaled to [0, k), top bit of the other."""

    def output(stream: str) -> int:
        digest = hashlib.sha256(f"lean_align/projection/1/{seed}/{name}/{stream}".encode()).digest()
        return reference_output(int.from_bytes(digest[:8], "little"), i)

    return (output("bucket") >> 32) * proj_dim // 2**32, 1 if output("sign") >= 2**63 else -1


def entries(projector: SjltProjector, name: str = "") -> tuple[Signs, Signs]:
    """Bucket and sign of every entry, as the projector holds them."""
    return projector._bucket[name].numpy().astype(np.int64), projector._sign[name].numpy().astype(np.int64)


def seen_entries(projector: SjltProjector) -> tuple[Signs, Signs]:
    """Bucket and sign of every entry, as projections of unit vectors show them."""
    rows = projector.project(torch.eye(projector.grad_dim)).numpy()
    assert (np.count_nonzero(rows, axis=1) == 1).all()
    bucket = np.abs(rows).argmax(axis=1)
    return bucket, rows[np.arange(len(rows)), bucket].astype(np.int64)


def test_splitmix64_of_the_published_vectors() -> None:
    """Vigna's reference splitmix64.c: the first five outputs from state 1234567, and the first from 0."""
    outputs = [value % WORD for value in splitmix64(1234567, 0, 5).tolist()]
    assert outputs == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert splitmix64(0, 0, 1).item() % WORD == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("key", [0, 1, -1, 2**63 - 1, -(2**63), 0x5DEECE66D])
def test_splitmix64_of_any_state_and_range(key: int) -> None:
    got = [value % WORD for value in splitmix64(key, 1000, 1006).tolist()]
    assert got == [reference_output(key % WORD, i) for i in range(1000, 1006)]


def test_first_eight_signs_and_buckets_at_seed_0() -> None:
    """State of the signs: SHA-256("lean_align/projection/1/0//sign")[:8] = 0x814cdf1364aa8529, little endian.

    The top bits of its first eight outputs are 0 1 1 1 0 1 1 0.  State of the buckets: 0xdb458a6d8a81c6a3;
    the high words of its outputs, times k and without the last 32 bits, are the buckets.
    """
    assert stream_key(0, "", "sign") % WORD == 0x814CDF1364AA8529
    assert stream_key(0, "", "bucket") % WORD == 0xDB458A6D8A81C6A3
    for proj_dim, expected in (
        (16, [5, 12, 1, 11, 8, 12, 10, 9]),
        (1000, [364, 801, 120, 744, 510, 800, 684, 616]),
    ):
        bucket, sign = seen_entries(make_projector("sjlt", 8, proj_dim, seed=0))
        assert sign.tolist() == [-1, 1, 1, 1, -1, 1, 1, -1]
        assert bucket.tolist() == expected
        assert [reference_entry(0, "", proj_dim, i) for i in range(8)] == list(zip(expected, sign.tolist()))


def test_a_row_by_hand() -> None:
    """k = 16: buckets 5 12 1 11 8 12 10 9, signs - + + + - + + -.

    The gradient 1 .. 8 puts -1 into 5, 2 + 6 into 12, 3 into 1, 4 into 11, -5 into 8, 7 into 10, -8 into 9.
    """
    row = make_projector("sjlt", 8, 16).project(torch.arange(1.0, 9.0))
    assert row.tolist() == [0, 3, 0, 0, 0, -1, 0, 0, -5, -8, 7, 4, 8, 0, 0, 0]


def test_entries_of_a_named_parameter_are_pinned() -> None:
    projector = make_projector("sjlt", {"base.q_proj.lora_A": 8}, 16)
    bucket, sign = seen_entries(projector)
    assert bucket.tolist() == [3, 5, 10, 14, 2, 8, 10, 12]
    assert sign.tolist() == [1, -1, 1, 1, -1, 1, 1, -1]


@pytest.mark.parametrize("proj_dim", [1, 7, 1024, 2**31])
def test_entries_equal_the_reference(proj_dim: int) -> None:
    projector = make_projector("sjlt", {"a": 50, "b/c": 3}, proj_dim, seed=11)
    for name, size in (("a", 50), ("b/c", 3)):
        bucket, sign = entries(projector, name)
        assert list(zip(bucket.tolist(), sign.tolist())) == [
            reference_entry(11, name, proj_dim, i) for i in range(size)
        ]


def test_entries_do_not_depend_on_the_block_they_are_made_in(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = entries(make_projector("sjlt", 1000, 64))
    monkeypatch.setattr(projection, "_GENERATE_ROWS", 37)
    pieces = entries(make_projector("sjlt", 1000, 64))
    np.testing.assert_array_equal(whole, pieces)


def test_seed_and_name_each_give_another_projection() -> None:
    drawn = [entries(make_projector("sjlt", {name: 100}, 64, seed), name) for seed in (0, 1) for name in ("a", "b")]
    assert len({bucket.tobytes() for bucket, _ in drawn}) == 4
    assert len({sign.tobytes() for _, sign in drawn}) == 4


def test_state_is_five_bytes_an_entry() -> None:
    projector = make_projector("sjlt", {"a": 1000, "b": 24}, 8192)
    tensors = [*projector._bucket.values(), *projector._sign.values()]
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) == 5 * projector.grad_dim == 5 * 1024


# Statistics: buckets even, signs even, and the two independent


def chi_square(counts: NDArray[np.int64], expected: float) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def assert_even_and_independent(bucket: Signs, sign: Signs, proj_dim: int) -> None:
    """Three chi-square sums, each with f degrees of freedom, at most f + 6 sqrt(2 f) + 10."""
    n = len(bucket)
    of_bucket = np.bincount(bucket, minlength=proj_dim)
    both = np.bincount(bucket * 2 + (sign > 0), minlength=2 * proj_dim)
    by_step = np.bincount((sign[:-1] > 0) * 2 + (sign[1:] > 0), minlength=4)  # one entry and the next
    for counts, total in ((of_bucket, n), (both, n), (by_step, n - 1)):
        freedom = len(counts) - 1
        assert chi_square(counts, total / len(counts)) < freedom + 6 * (2 * freedom) ** 0.5 + 10


@pytest.mark.parametrize("proj_dim", [2, 16, 100, 1024, 1000])
@pytest.mark.parametrize("seed", [0, 1])
def test_buckets_and_signs_are_even_and_independent(proj_dim: int, seed: int) -> None:
    assert_even_and_independent(*entries(make_projector("sjlt", 50_000, proj_dim, seed)), proj_dim)


@pytest.mark.parametrize("proj_dim", [2, 16, 1024])
@pytest.mark.parametrize("fault", ["low bit of the bucket", "top bit of the bucket", "constant", "alternating"])
def test_the_check_of_independence_catches_a_sign_that_is_not(proj_dim: int, fault: str) -> None:
    bucket, _ = entries(make_projector("sjlt", 50_000, proj_dim))
    sign = {
        "low bit of the bucket": bucket % 2,
        "top bit of the bucket": bucket // (proj_dim // 2),
        "constant": np.ones_like(bucket),
        "alternating": np.arange(len(bucket)) % 2,
    }[fault]
    with pytest.raises(AssertionError):
        assert_even_and_independent(bucket, sign * 2 - 1, proj_dim)


def test_the_check_catches_buckets_that_miss_one_of_64() -> None:
    bucket, sign = entries(make_projector("sjlt", 50_000, 64))
    with pytest.raises(AssertionError):
        assert_even_and_independent(np.where(bucket == 63, 0, bucket), sign, 64)


def test_streams_of_two_parameters_are_independent() -> None:
    """Signs of equal entries under two names agree in half of 50,000 cases, within six standard deviations."""
    projector = make_projector("sjlt", {"lora_A": 50_000, "lora_B": 50_000}, 64)
    agree = (entries(projector, "lora_A")[1] == entries(projector, "lora_B")[1]).mean()
    assert abs(agree - 0.5) < 6 * 0.5 / 50_000**0.5


# What the call takes and gives


def test_shapes_and_types_are_kept() -> None:
    project = make_projector("sjlt", {"a": 3, "b": 2}, 8)
    for shape, dtype in (
        ((4, 5), torch.float32),
        ((5,), torch.float64),
        ((1, 5), torch.float32),
        ((0, 5), torch.float32),
    ):
        rows = project.project(torch.ones(shape, dtype=dtype))
        assert (tuple(rows.shape), rows.dtype) == ((*shape[:-1], 8), dtype)


@pytest.mark.parametrize("length", [4, 6, 10])
def test_a_gradient_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"got gradients with {length} entries; expected grad_dim = 5"):
        make_projector("sjlt", {"a": 3, "b": 2}, 8).project(torch.ones(2, length))


def test_add_to_adds() -> None:
    projector, row = make_projector("sjlt", {"a": 6}, 4), torch.ones(4)
    projector.add_to(row, "a", torch.arange(6.0).reshape(2, 3))
    torch.testing.assert_close(row - 1, projector.project(torch.arange(6.0)))


def test_an_unknown_kind_and_an_empty_row_are_refused() -> None:
    with pytest.raises(RecipeError, match="'gaussian'; expected 'sjlt'"):
        make_projector("gaussian", 8, 4)
    with pytest.raises(RecipeError, match="proj_dim is 0"):
        make_projector("sjlt", 8, 0)


def test_equal_fingerprints_mean_equal_projections() -> None:
    """Rows may be compared when fingerprints are equal; names and sizes of parameters bear on every row."""
    sizes = [{"a": 6}, {"b": 6}, {"a": 2, "b": 4}, {"a": 4, "b": 2}]
    made = [make_projector("sjlt", size, 32, seed) for size in sizes for seed in (0, 1)]
    for one in made:
        for other in made:
            if one.fingerprint() == other.fingerprint():
                np.testing.assert_array_equal(seen_entries(one), seen_entries(other))
