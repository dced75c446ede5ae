"""What this machine makes a second: rollouts, gradients and training steps of a recipe, way beside way."""

from __future__ import annotations

from lean_align.throughput.measuring import Throughput, measure_throughput

__all__ = ["Throughput", "measure_throughput"]
