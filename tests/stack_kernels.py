"""Make vLLM's CPU build loadable by its plain name on this processor; run when the environment of the stack is made.

The wheel brings three builds of one module: `_C` for processors with AVX512-BF16, `_C_AVX512` and `_C_AVX2`.  vLLM
takes the one that fits.  Unsloth loads `vllm._C` as it is imported, and on any other processor the process ends there
with an illegal instruction.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import torch


def main() -> None:
    """Put the build that fits this processor in the place of `_C`."""
    if torch.cpu._is_avx512_bf16_supported():
        return
    spec = find_spec("vllm")
    assert spec is not None, "vllm is not installed"
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    fitting = "_C_AVX512" if torch.cpu._is_avx512_supported() else "_C_AVX2"
    (folder / "_C.abi3.so").unlink()  # it may be a link to a package cache
    shutil.copy(folder / f"{fitting}.abi3.so", folder / "_C.abi3.so")
    print(f"vllm._C: the build {fitting}, since this processor has no AVX512-BF16")


if __name__ == "__main__":
    main()
