"""`python -m lean_align` is the command `lean-align`."""

from lean_align.cli import main

main()
