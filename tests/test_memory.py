"""What an out-of-memory error says, in the words of torch and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lean_align.errors import OutOfMemoryError
from lean_align.memory import Shortage, shortage_of

CARD = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 23.64 GiB of which 15.50 MiB is "
    "free. Including non-PyTorch memory, this process has 23.61 GiB memory in use."
)


def test_a_full_card():
    assert shortage_of(torch.OutOfMemoryError(CARD)) == Shortage(20 * 2**20, 15 * 2**20 + 2**19)


def test_torch_itself_on_a_cpu():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)
    shortage = shortage_of(caught.value)
    assert shortage.needed_bytes == 2**50
    assert shortage.free_bytes > 0


def test_numpy_itself():
    with pytest.raises(MemoryError) as caught:
        np.empty(2**50, np.uint8)
    assert shortage_of(caught.value).needed_bytes == 2**50  # it says 1.00 PiB


def test_our_own_error_is_one_too():
    assert shortage_of(OutOfMemoryError("no memory for a gradient")) is not None


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("not enough memory"), KeyError("x")])
def test_other_errors_are_none(error):
    assert shortage_of(error) is None


def test_what_is_not_known_is_said():
    assert str(Shortage(None, 3 * 2**30)) == "unknown more needed, 3.0 GiB free"
