"""The gradient store: unit rows, norms, checksums and row flags in NumPy files that can be mapped.

::

    projected.npy    (n, proj_dim) float16  unit rows; a zero row where learnability is 0
    norms.npy        (n,) float32           norm of the projected gradient
    checksums.npy    (n,) uint32            CRC-32 of prompt_id, norm and row; absent from format 1
    written.npy      (n,) uint8             1 once the row is on disk
    prompt_ids.json                         row order

A row is flagged after it, its norm and its checksum are on disk, so that after a kill at any moment a
flagged row is whole.  Raw gradients would underflow in float16; entries of a unit row are near
1/sqrt(k) and do not.
"""

from lean_align.store.format import PROJECTION
from lean_align.store.gradient_store import FirstColumns, GradientStore, open_store
from lean_align.store.writing import StoreWriter

__all__ = ["PROJECTION", "FirstColumns", "GradientStore", "StoreWriter", "open_store"]
