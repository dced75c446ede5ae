"""The projection's integers, pinned and computed a second time without torch, and its statistics.

Pinned because they are part of the store's format: a projection drawn otherwise makes old stores worthless.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from lean_align.errors import RecipeError
from lean_align.projection import (
    STREAM_VERSION,
    SjltProjector,
    StackedProjector,
    StreamingProjector,
    make_projector,
    project_parts,
    rademacher,
    sjlt,
    splitmix64,
    stream_key,
)

WORD = 2**64
KINDS = ("sjlt", "rademacher", "trak")
Signs = NDArray[np.int64]


def reference_output(state: int, i: int) -> int:
    """Output i of SplitMix64 in Python's own integers, after Steele, Lea and Flood 2014, figure 14."""
    z = (state + (i + 1) * 0x9E3779B97F4A7C15) % WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % WORD
    return z ^ (z >> 31)


def reference_word(seed: int, name: str, stream: str, i: int) -> int:
    """Output i of a stream of the projection."""
    digest = hashlib.sha256(f"lean_align/projection/1/{seed}/{name}/{stream}".encode()).digest()
    return reference_output(int.from_bytes(digest[:8], "little"), i)


def reference_entry(seed: int, name: str, proj_dim: int, i: int) -> tuple[int, int]:
    """Bucket and sign of entry i: high 32 bits of one stream scaled to [0, k), top bit of the other."""
    bucket = (reference_word(seed, name, "bucket", i) >> 32) * proj_dim // 2**32
    return bucket, 1 if reference_word(seed, name, "sign", i) >= 2**63 else -1


def reference_entries(seed: int, name: str, proj_dim: int, nonzeros: int, i: int) -> list[tuple[int, int]]:
    """The same for several non-zeros a column: blocks share a word by halves, and the word of signs by bits."""
    width, sign_word, found = proj_dim // nonzeros, reference_word(seed, name, "sign", i), []
    for block in range(nonzeros):
        word = reference_word(seed, name, f"bucket/{block // 2}", i)
        half = word >> 32 if block % 2 == 0 else word % 2**32
        found.append((block * width + half * width // 2**32, 1 if (sign_word >> (63 - block)) % 2 else -1))
    return found


def reference_sign(seed: int, name: str, i: int, column: int) -> int:
    """Sign of a dense projection: bit b mod 64 of output i of stream b div 64."""
    return 1 if (reference_word(seed, name, f"rademacher/{column // 64}", i) >> (column % 64)) % 2 else -1


def entries(projector: StreamingProjector, name: str = "", block: int = 0) -> tuple[Signs, Signs]:
    """Bucket and sign of every entry in one block of cells, as the projector gives them."""
    assert isinstance(projector, SjltProjector)
    buckets, signs = projector.entries(name, 0, projector.sizes[name])
    return buckets[block].numpy(), signs[block].numpy().astype(np.int64)


def seen_entries(projector: StreamingProjector) -> tuple[Signs, Signs]:
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


def test_seed_and_name_each_give_another_projection() -> None:
    drawn = [entries(make_projector("sjlt", {name: 100}, 64, seed), name) for seed in (0, 1) for name in ("a", "b")]
    assert len({bucket.tobytes() for bucket, _ in drawn}) == 4
    assert len({sign.tobytes() for _, sign in drawn}) == 4


def test_state_is_five_bytes_an_entry() -> None:
    projector = make_projector("sjlt", {"a": 1000, "b": 24}, 8192)
    assert isinstance(projector, SjltProjector)
    tensors = [tensor for kept in projector._kept.values() for tensor in kept]
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) == 5 * projector.grad_dim == 5 * 1024


# Several non-zeros a column


def test_first_four_columns_of_four_nonzeros_at_seed_0() -> None:
    """k = 16: cell i lies in block i, cells 4 i .. 4 i + 3; every value is -1/2 or 1/2.

    State of the signs as above: the top hexadecimal digits of its first four outputs, 1 d f c, are the signs in binary.
    """
    rows = make_projector("sjlt", 4, 16, nonzeros=4).project(torch.eye(4))
    seen = [[(int(cell), int(row[cell] * 2)) for cell in row.nonzero()[:, 0]] for row in rows]
    assert seen == [
        [(3, -1), (4, -1), (10, -1), (14, 1)],
        [(1, 1), (4, 1), (8, -1), (15, 1)],
        [(1, 1), (4, 1), (11, 1), (14, 1)],
        [(3, 1), (6, 1), (10, -1), (14, -1)],
    ]
    assert [sorted(cell // 4 for cell, _ in column) for column in seen] == [[0, 1, 2, 3]] * 4


@pytest.mark.parametrize(("nonzeros", "proj_dim"), [(2, 10), (4, 8192), (8, 24), (3, 9), (64, 64)])
def test_entries_of_several_nonzeros_equal_the_reference(nonzeros: int, proj_dim: int) -> None:
    projector = make_projector("sjlt", {"a": 20, "b/c": 3}, proj_dim, seed=11, nonzeros=nonzeros)
    assert isinstance(projector, SjltProjector)
    for name, size in (("a", 20), ("b/c", 3)):
        buckets, signs = projector.entries(name, 0, size)
        for i in range(size):
            got = list(zip(buckets[:, i].tolist(), signs[:, i].tolist()))
            assert got == reference_entries(11, name, proj_dim, nonzeros, i)


def test_several_nonzeros_keep_no_state() -> None:
    projector = make_projector("sjlt", 1000, 64, nonzeros=4)
    assert not any(isinstance(value, torch.Tensor) for value in vars(projector).values())
    assert projector._kept == {}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("nonzeros", "proj_dim"), [(3, 8192), (0, 8), (-1, 8), (128, 128), (16, 8)])
def test_nonzeros_that_do_not_divide_are_refused(nonzeros: int, proj_dim: int) -> None:
    with pytest.raises(
        RecipeError, match=f"gradients.sjlt_nonzeros is {nonzeros} .*a divisor of proj_dim from 1 to 64"
    ):
        make_projector("sjlt", 8, proj_dim, nonzeros=nonzeros)


@pytest.mark.parametrize("kind", ["rademacher", "trak"])
def test_nonzeros_of_a_dense_kind_are_refused(kind: str) -> None:
    with pytest.raises(RecipeError, match=r"gradients.sjlt_nonzeros is 4 .*Leave gradients.sjlt_nonzeros out"):
        make_projector(kind, 8, 4, nonzeros=4)


# Dense signs


def dense_signs(grad_dim: int | dict[str, int], proj_dim: int, seed: int = 0) -> Signs:
    """(P, k) of -1 and 1, as projections of unit vectors show them."""
    projector = make_projector("rademacher", grad_dim, proj_dim, seed)
    rows = projector.project(torch.eye(projector.grad_dim, dtype=torch.float64)) * proj_dim**0.5
    assert torch.equal(rows.abs().round(decimals=9), torch.ones_like(rows))
    return rows.round().numpy().astype(np.int64)


def test_first_eight_dense_signs_at_seed_0() -> None:
    """State: SHA-256("lean_align/projection/1/0//rademacher/0")[:8]; signs are the low bits of its outputs, upwards."""
    assert stream_key(0, "", "rademacher/0") % WORD == 0x41DD35B9DC37A8C2
    assert reference_word(0, "", "rademacher/0", 0) == 0xD362E7AC19817471
    assert dense_signs(3, 8).tolist() == [
        [1, -1, -1, -1, 1, 1, 1, -1],
        [-1, 1, 1, 1, -1, 1, 1, -1],
        [1, 1, -1, -1, 1, -1, 1, 1],
    ]


def test_dense_signs_equal_the_reference() -> None:
    signs = dense_signs({"a": 5, "b/c": 3}, 130, seed=11)
    expected = [
        [reference_sign(11, name, i, column) for column in range(130)]
        for name, size in (("a", 5), ("b/c", 3))
        for i in range(size)
    ]
    assert signs.tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dense_rows_are_nested(dtype: torch.dtype) -> None:
    """sqrt(1024 / 256) = 2 and sqrt(1024 / 64) = 4 are exact, so the shorter rows are the longer ones to the bit."""
    gradients = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 700))).to(dtype)
    long = make_projector("rademacher", 700, 1024).project(gradients)
    for proj_dim in (1, 4, 16, 64, 256):
        short = make_projector("rademacher", 700, proj_dim).project(gradients)
        assert torch.equal(short, long[:, :proj_dim] * (1024 / proj_dim) ** 0.5)
    other = make_projector("rademacher", 700, 300).project(gradients)
    torch.testing.assert_close(other * 300**0.5, long[:, :300] * 32)


def test_float64_is_computed_in_float64() -> None:
    """Against the signs of the reference: 1e-12, far below float32's 1e-7."""
    x = np.random.default_rng(0).normal(size=200)
    exact = [sum(v * reference_sign(0, "", i, b) for i, v in enumerate(x)) / 70**0.5 for b in range(70)]
    projector = make_projector("rademacher", 200, 70)
    np.testing.assert_allclose(projector.project(torch.from_numpy(x)).numpy(), exact, rtol=0, atol=1e-12)
    single = projector.project(torch.from_numpy(x).float()).double().numpy()
    np.testing.assert_allclose(single, exact, rtol=0, atol=1e-5)
    with pytest.raises(AssertionError):  # the check tells the two apart
        np.testing.assert_allclose(single, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("proj_dim", [64, 100])
def test_dense_signs_are_even_along_entries_columns_and_diagonals(proj_dim: int) -> None:
    assert_even_signs(dense_signs(4000, proj_dim))


def assert_even_signs(signs: Signs) -> None:
    """Mean, and mean product with the next entry, the next column and the column one word on, within 6 deviations."""
    shifted = [(1, 0), (0, 1), (1, 1), (0, 32), *([(0, 64)] if signs.shape[1] > 64 else [])]
    means = [signs.mean()] + [
        (signs[down:, right:] * signs[: len(signs) - down, : signs.shape[1] - right]).mean() for down, right in shifted
    ]
    assert np.abs(means).max() < 6 / (len(signs) * (signs.shape[1] % 64 or 64)) ** 0.5


@pytest.mark.parametrize("fault", ["all equal", "columns repeat", "entries repeat", "words repeat"])
def test_the_check_of_even_signs_catches(fault: str) -> None:
    signs = dense_signs(2000, 128)
    faulty = {
        "all equal": np.ones_like(signs),
        "columns repeat": signs[:, np.arange(128) // 2],
        "entries repeat": signs[np.arange(2000) // 2],
        "words repeat": signs[:, np.arange(128) % 64],
    }[fault]
    assert_even_signs(signs)
    with pytest.raises(AssertionError):
        assert_even_signs(faulty)


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


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_types_are_kept(kind: str) -> None:
    project = make_projector(kind, {"a": 3, "b": 2}, 8)
    for shape, dtype in (
        ((4, 5), torch.float32),
        ((5,), torch.float64),
        ((1, 5), torch.float32),
        ((0, 5), torch.float32),
        ((33, 5), torch.float32),
    ):
        rows = project.project(torch.ones(shape, dtype=dtype))
        assert (tuple(rows.shape), rows.dtype) == ((*shape[:-1], 8), dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [4, 6, 10])
def test_a_gradient_of_another_length_is_refused(kind: str, length: int) -> None:
    with pytest.raises(ValueError, match=f"got gradients with {length} entries .*expected grad_dim = 5"):
        make_projector(kind, {"a": 3, "b": 2}, 8).project(torch.ones(2, length))


@pytest.mark.parametrize("kind", ["sjlt", "rademacher"])
def test_add_to_adds(kind: str) -> None:
    projector, row = make_projector(kind, {"a": 6}, 4), torch.ones(4)
    assert isinstance(projector, StreamingProjector)
    projector.add_to(row, "a", torch.arange(6.0).reshape(2, 3))
    torch.testing.assert_close(row - 1, projector.project(torch.arange(6.0)))


@pytest.mark.parametrize("kind", ["sjlt", "rademacher"])
def test_add_to_refuses_an_unknown_name_and_another_size(kind: str) -> None:
    projector = make_projector(kind, {"a": 6}, 4)
    assert isinstance(projector, StreamingProjector)
    with pytest.raises(ValueError, match="got a gradient of 'b'; expected one of the 1 parameters"):
        projector.add_to(torch.zeros(4), "b", torch.ones(6))
    with pytest.raises(ValueError, match="'a' with 5 entries; expected 6"):
        projector.add_to(torch.zeros(4), "a", torch.ones(5))


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_in_low_precision_is_summed_in_float32(kind: str) -> None:
    gradients = torch.linspace(-1, 1, 300).bfloat16()
    projector = make_projector(kind, 300, 4)
    assert torch.equal(projector.project(gradients), projector.project(gradients.float()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_given_by_parameter_is_projected_as_the_whole_one(kind: str) -> None:
    projector = make_projector(kind, {"a": 6, "b": 4}, 8)
    whole = torch.linspace(-1, 1, 10)
    slot = projector.batch_rows - 1
    rows = torch.zeros(projector.batch_rows, 10)
    rows[slot] = whole
    found = project_parts(projector, {"a": whole[:6].reshape(2, 3), "b": whole[6:]}, slot)
    assert torch.allclose(found, projector.project(rows)[slot], atol=1e-6)
    assert found.any()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_projected_is_left_alone(kind: str) -> None:
    gradients = torch.ones(2, 5, requires_grad=True)
    rows = make_projector(kind, 5, 4).project(gradients)
    assert not rows.requires_grad
    assert torch.equal(gradients, torch.ones(2, 5))


@pytest.mark.parametrize(
    ("kind", "batch_rows", "streaming"), [("sjlt", 1, True), ("rademacher", 16, True), ("trak", 16, False)]
)
def test_attributes(kind: str, batch_rows: int, streaming: bool) -> None:
    projector = make_projector(kind, {"a": 3, "b": 2}, 8)
    assert (projector.kind, projector.proj_dim, projector.grad_dim, projector.batch_rows) == (kind, 8, 5, batch_rows)
    assert isinstance(projector, StreamingProjector) == streaming


def test_an_unknown_kind_and_an_empty_row_are_refused() -> None:
    with pytest.raises(RecipeError, match="'gaussian'; expected 'sjlt', 'rademacher' or 'trak'"):
        make_projector("gaussian", 8, 4)
    for kind in KINDS:
        with pytest.raises(RecipeError, match=r"gradients.proj_dim is 0"):
            make_projector(kind, 8, 0)
        with pytest.raises(RecipeError, match="parameter 'a' has -1 entries"):
            make_projector(kind, {"a": -1}, 8)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_fingerprints_mean_equal_projections(kind: str) -> None:
    """Rows may be compared when fingerprints are equal; names and sizes of parameters bear on every row."""
    sizes = [{"a": 6}, {"b": 6}, {"a": 2, "b": 4}, {"a": 4, "b": 2}]
    made = [make_projector(kind, size, 32, seed) for _ in range(2) for size in sizes for seed in (0, 1)]
    assert len({json.dumps(one.fingerprint(), sort_keys=True) for one in made}) == 8
    for one in made:
        for other in made:
            if one.fingerprint() == other.fingerprint():
                assert torch.equal(one.project(torch.eye(6)), other.project(torch.eye(6)))


def test_fingerprints_tell_kinds_nonzeros_and_lengths_apart() -> None:
    made = [make_projector(kind, 6, proj_dim) for kind in KINDS for proj_dim in (8, 16)]
    made += [make_projector("sjlt", 6, 8, nonzeros=nonzeros) for nonzeros in (2, 4)]
    fingerprints = [one.fingerprint() for one in made]
    assert len({json.dumps(fingerprint, sort_keys=True) for fingerprint in fingerprints}) == 8
    common = {"kind", "proj_dim", "grad_dim", "seed", "stream_version", "parameters"}
    assert all(common <= set(fingerprint) for fingerprint in fingerprints)
    assert {fingerprint["stream_version"] for fingerprint in fingerprints} == {STREAM_VERSION}


# The same whatever the size of the pieces


def rows_in_pieces(
    kind: str, nonzeros: int, monkeypatch: pytest.MonkeyPatch, entries: int, columns: int
) -> torch.Tensor:
    """Rows of whole numbers, whose sums are exact in any order, worked out in blocks of the given size."""
    monkeypatch.setitem(sjlt._PIECE, "cpu", entries)
    monkeypatch.setitem(rademacher._BLOCK, "cpu", (entries, columns))
    gradients = torch.from_numpy(np.random.default_rng(0).integers(-99, 99, size=(3, 1000)).astype(np.float64))
    return make_projector(kind, {"a": 600, "b": 400}, 208, nonzeros=nonzeros).project(gradients)


PIECES = [(37, 64), (1, 64), (600, 128), (1000, 1024)]


@pytest.mark.parametrize(("kind", "nonzeros"), [("sjlt", 1), ("sjlt", 4), ("sjlt", 8), ("rademacher", 1)])
def test_rows_do_not_depend_on_the_pieces_they_are_made_in(
    kind: str, nonzeros: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, *others = [rows_in_pieces(kind, nonzeros, monkeypatch, *piece) for piece in [(4096, 256), *PIECES]]
    assert all(torch.equal(whole, other) for other in others)


@pytest.mark.parametrize(("kind", "nonzeros"), [("sjlt", 1), ("sjlt", 4), ("rademacher", 1)])
def test_the_check_of_pieces_catches_streams_that_start_again(
    kind: str, nonzeros: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sjlt, rademacher):
        monkeypatch.setattr(module, "splitmix64", lambda key, start, stop, device: splitmix64(key, 0, stop - start))
    whole = rows_in_pieces(kind, nonzeros, monkeypatch, 4096, 256)
    assert not torch.equal(whole, rows_in_pieces(kind, nonzeros, monkeypatch, 37, 64))


# R is never held


class LargestTensor(TorchDispatchMode):
    """Entries of the largest tensor made, views of what is projected left out."""

    def __init__(self, given: torch.Tensor) -> None:
        super().__init__()
        self.given, self.entries = given.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() != self.given:
            self.entries = max(self.entries, result.numel())
        return result


def assert_memory_does_not_grow(project_of: Callable[[int], Callable[[torch.Tensor], torch.Tensor]]) -> None:
    """The largest tensor of a call is the same for 5,000 and 20,000 entries."""
    largest = []
    for grad_dim in (5000, 20_000):
        project, gradients = project_of(grad_dim), torch.ones(2, grad_dim)
        with LargestTensor(gradients) as seen:
            project(gradients)
        largest.append(seen.entries)
    assert largest[0] == largest[1] > 0


@pytest.mark.parametrize(("kind", "nonzeros"), [("sjlt", 1), ("sjlt", 4), ("rademacher", 1)])
def test_memory_of_a_call_does_not_grow_with_the_gradient(
    kind: str, nonzeros: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sjlt._PIECE, "cpu", 1000)
    monkeypatch.setitem(rademacher._BLOCK, "cpu", (1000, 64))
    assert_memory_does_not_grow(lambda grad_dim: make_projector(kind, grad_dim, 64, nonzeros=nonzeros).project)


def test_the_check_of_memory_catches_signs_held_whole() -> None:
    with pytest.raises(AssertionError):
        assert_memory_does_not_grow(lambda grad_dim: lambda g: g @ torch.ones(grad_dim, 64))


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "nonzeros"), [("sjlt", 1), ("sjlt", 4), ("rademacher", 1)])
def test_rows_are_the_same_on_a_card(kind: str, nonzeros: int) -> None:
    gradients = torch.from_numpy(np.random.default_rng(0).integers(-99, 99, size=(3, 1000)).astype(np.float64))
    cpu, card = (make_projector(kind, 1000, 256, nonzeros=nonzeros, device=device) for device in ("cpu", "cuda"))
    assert torch.equal(card.project(gradients.cuda()).cpu(), cpu.project(gradients))


@pytest.mark.parametrize("kind", ["sjlt", "rademacher"])
def test_stacked_projections_lie_side_by_side(kind):
    sizes = {"a": 70, "b": 33}
    parts = [make_projector(kind, sizes, k, seed) for k, seed in ((24, 0), (16, 5))]
    stacked = StackedProjector(parts)
    gradients = torch.randn(3, 103, generator=torch.Generator().manual_seed(0))
    expected = torch.cat([part.project(gradients) for part in parts], 1)
    assert torch.equal(stacked.project(gradients), expected)
    row = torch.zeros(stacked.proj_dim)
    for name, piece in zip(sizes, gradients[1].split(list(sizes.values()))):
        stacked.add_to(row, name, piece)
    assert torch.allclose(row, expected[1], atol=1e-6)
    assert len(stacked.fingerprint()["projections"]) == 2


def test_projections_of_other_lengths_are_not_stacked():
    with pytest.raises(RecipeError, match="grad_dim"):
        StackedProjector([make_projector("sjlt", 10, 4), make_projector("sjlt", 11, 4)])
