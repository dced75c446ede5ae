"""The stages joined: what each reads, what it writes, and in which order they run."""

from lean_align.pipeline.run import run
from lean_align.pipeline.short import select_from_file
from lean_align.pipeline.stages import run_stage

__all__ = ["run", "run_stage", "select_from_file"]
