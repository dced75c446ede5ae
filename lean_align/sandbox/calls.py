"""Three questions to the sandbox: what arguments a text means, what a function returns, what a script does.

A forged answer is only another answer.  Whether a model predicted an input is asked of two children: the first turns
the model's text into literals, and the second, which holds no text of the model's, gives them to the benchmark's
function.  The expected output goes to neither; the caller compares, on literals, in its own process.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lean_align.sandbox.child import MESSAGE_CHARS, READY, REPORTS, NoLiteral, is_literal, literal_text
from lean_align.sandbox.literals import CALLED, call_source, literal_arguments, parse_call, parse_literal
from lean_align.sandbox.outcome import Limits, Outcome, SandboxError, SandboxResult
from lean_align.sandbox.process import run_child
from lean_align.sandbox.watching import Ended

_NOTHING: frozenset[str] = frozenset()


def evaluate_arguments(text: str, limits: Limits | None = None, context: str = "") -> SandboxResult:
    """Turn the text of a call's arguments, such as `[1, 2] * 3, key='x'`, into literals.

    Plain literals are read in this process and start no child; anything else is evaluated in one.

    Parameters
    ----------
    text : str
        What stands between the brackets of a call.
    limits : Limits, optional
    context : str
        Python whose names the text may use, such as the benchmark's own source; else it knows the built-in ones only.

    Returns
    -------
    SandboxResult
        The value is a pair: tuple of positional arguments, dict of keyword arguments.

    Raises
    ------
    SandboxError
        Where the machine lacks what the walls need.
    """
    limits = limits or Limits()
    if len(text) > limits.output_bytes:
        return SandboxResult("error", message=f"{len(text)} characters of arguments; at most {limits.output_bytes}")
    try:
        plain = literal_arguments(parse_call(text))
    except ValueError as error:
        return SandboxResult("error", message=str(error)[:MESSAGE_CHARS])
    work = {"kind": "arguments", "name": CALLED, "source": call_source(text), "context": context}
    result = _ask(work, limits) if plain is None else SandboxResult("value", value=plain)
    if result.outcome == "value" and not _are_arguments(result.value):
        return replace(result, outcome="no value", value=None, message="what came back is not the arguments of a call")
    return result


def call_function(
    source: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], limits: Limits | None = None
) -> SandboxResult:
    """Run a function of the benchmark on literals.

    Parameters
    ----------
    source : str
        Python that defines the function.  The value is as trustworthy as this text.
    name : str
    args, kwargs
        Literals, such as `evaluate_arguments` returns.
    limits : Limits, optional

    Returns
    -------
    SandboxResult
        The value is what the function returned.

    Raises
    ------
    SandboxError
        For arguments that are not literals, and where the machine lacks what the walls need.
    """
    try:
        arguments = literal_text((tuple(args), dict(kwargs)))
    except NoLiteral as error:
        raise SandboxError(f"{error} among the arguments of {name}; expected literals only") from None
    return _ask({"kind": "call", "name": name, "source": source, "arguments": arguments}, limits or Limits())


def run_script(code: str, limits: Limits | None = None, stdin: str = "") -> SandboxResult:
    """Run a program, as `python file.py < stdin` would.

    Parameters
    ----------
    code : str
    limits : Limits, optional
    stdin : str
        All that the program can read.

    Returns
    -------
    SandboxResult
        The value is what it printed, where it ended with status 0.

    Raises
    ------
    SandboxError
        Where the machine lacks what the walls need.
    """
    return _script(code, limits or Limits(), stdin)


def _are_arguments(value: Any) -> bool:
    """Code can send any literal in place of its arguments; none may raise in the caller or in `call_function`."""
    if type(value) is not tuple or [type(part) for part in value] != [tuple, dict]:
        return False
    return all(type(name) is str for name in value[1]) and is_literal(value)


def _script(code: str, limits: Limits, stdin: str = "", left_out: frozenset[str] = _NOTHING) -> SandboxResult:
    return _result(run_child({"kind": "script", "source": code}, limits, stdin, left_out), limits, script=True)


def _ask(work: Mapping[str, str], limits: Limits) -> SandboxResult:
    return _result(run_child(work, limits), limits, script=False)


def _result(ended: Ended, limits: Limits, script: bool) -> SandboxResult:
    _require_walls(ended)
    outcome, value, message = _outcome(ended, limits, script)
    return SandboxResult(
        outcome,
        value,
        message[:MESSAGE_CHARS],
        _text(ended.stdout)[: limits.output_bytes],
        ended.returncode,
        ended.wall_seconds,
        ended.cpu_seconds,
        ended.peak_rss_bytes,
    )


def _require_walls(ended: Ended) -> None:
    """Before READY only our own code has run, so what came instead is the child's true reason."""
    if ended.report.startswith(READY.encode()) or ended.stopped is not None:
        return
    reason = _text(ended.report) or _text(ended.stderr).strip() or f"ended with status {ended.returncode}"
    raise SandboxError(
        f"the sandbox's child could not put up its walls: {reason[-MESSAGE_CHARS:]}. No code was run. Raise "
        "Limits.memory_bytes or Limits.open_files if they were lowered, else leave the code benchmarks out"
    )


def _outcome(ended: Ended, limits: Limits, script: bool) -> tuple[Outcome, Any, str]:
    if ended.stopped is not None:
        return ended.stopped, None, f"killed after {ended.wall_seconds:.2f} s"
    if ended.returncode < 0:
        return _of_signal(ended, limits)
    letter, text = chr(ended.report[1]) if len(ended.report) > 1 else "", _text(ended.report[2:])
    if script and letter != "M":
        return _of_status(ended)
    if REPORTS.get(letter) == "value":
        return _of_value(text)
    if letter in REPORTS:
        return REPORTS[letter], None, text
    return "no value", None, f"it ended with status {ended.returncode} and no result"


def _of_signal(ended: Ended, limits: Limits) -> tuple[Outcome, Any, str]:
    # the kernel's limit counts ticks, which run ahead of what it reports by up to some 10 % on a virtual machine
    at_limit = ended.returncode == -signal.SIGKILL and ended.cpu_seconds >= 0.8 * limits.cpu_seconds
    if at_limit or ended.returncode == -signal.SIGXCPU:
        return "cpu", None, f"killed after {ended.cpu_seconds:.2f} s of processor time"
    return "killed", None, f"ended by {signal.Signals(-ended.returncode).name}"


def _of_status(ended: Ended) -> tuple[Outcome, Any, str]:
    if ended.returncode == 0:
        return "value", _text(ended.stdout), ""
    return "error", None, _text(ended.stderr).strip()[-MESSAGE_CHARS:] or f"exit status {ended.returncode}"


def _of_value(text: str) -> tuple[Outcome, Any, str]:
    try:
        return "value", parse_literal(text), ""
    except ValueError as error:
        return "no value", None, f"what came back is {error}"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
