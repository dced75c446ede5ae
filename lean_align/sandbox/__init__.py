"""Python that a model wrote, run in a child process behind walls of the Linux kernel.

>>> from lean_align.sandbox import call_function, evaluate_arguments
>>> arguments = evaluate_arguments("[3, 1], reverse=True").value
>>> call_function("def f(xs, reverse): return sorted(xs, reverse=reverse)", "f", *arguments).value
[3, 1]

What holds, and what does not, is in docs/sandbox.md.
"""

from lean_align.sandbox.calls import call_function, evaluate_arguments, run_script
from lean_align.sandbox.literals import parse_literal
from lean_align.sandbox.outcome import OUTCOMES, Limits, Outcome, SandboxError, SandboxResult, SandboxSupport
from lean_align.sandbox.support import sandbox_support

__all__ = [
    "OUTCOMES",
    "Limits",
    "Outcome",
    "SandboxError",
    "SandboxResult",
    "SandboxSupport",
    "call_function",
    "evaluate_arguments",
    "parse_literal",
    "run_script",
    "sandbox_support",
]
