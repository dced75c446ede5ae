"""Text of a literal to its value, in the parent, where no name is looked up and nothing is called.

Differs from ast.literal_eval in:

1. a range is read, and so are the names `inf` and `nan` when asked for;
2. nothing but ValueError is raised, whatever the text.  CPython bounds the depth of its own parser;
3. an int has at most `MAX_INT_BITS`.
"""

from __future__ import annotations

import ast
import math
import operator
from typing import Any

from lean_align.sandbox.child import MAX_INT_BITS

NUMBERS = {"inf": math.inf, "nan": math.nan}
CALLED = "arguments"
_UNFIT = (TypeError, OverflowError, RecursionError, MemoryError)
"""{[]: 1}; a complex number or a range with a huge int in it; nested too deep, twice."""


def parse_literal(text: str) -> Any:
    """Value of a literal, such as a child sends back.

    Raises
    ------
    ValueError
        For anything else.
    """
    try:
        return _value(_parsed(text).body, NUMBERS)
    except _UNFIT as error:
        raise ValueError(f"not a literal: {type(error).__name__}") from None


def parse_call(text: str) -> ast.Call:
    """The call `arguments(text)`, where the text is nothing but arguments.

    Raises
    ------
    ValueError
        For a text that is not Python, or that closes the bracket and goes on.
    """
    node = _parsed(call_source(text)).body
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise ValueError("the text goes on after the arguments")
    return node


def call_source(text: str) -> str:
    """A line break before the bracket, since the text may end in a comment."""
    return f"{CALLED}({text}\n)"


def literal_arguments(call: ast.Call) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Positional and keyword arguments where all of them are plain literals; None where one must be evaluated."""
    if any(keyword.arg is None for keyword in call.keywords):
        return None
    try:
        keywords = {str(keyword.arg): _value(keyword.value, {}) for keyword in call.keywords}
        return tuple(_value(node, {}) for node in call.args), keywords
    except (ValueError, *_UNFIT):
        return None


def _parsed(text: str) -> ast.Expression:
    try:
        return ast.parse(text.strip(), mode="eval")
    except (SyntaxError, RecursionError, MemoryError) as error:
        message = f"{type(error).__name__}: {getattr(error, 'msg', None) or 'nested too deep'}"
        raise ValueError(message) from None


def _value(node: ast.expr, names: dict[str, float]) -> Any:
    match node:
        case ast.Constant(value=int() as value) if value.bit_length() > MAX_INT_BITS:
            raise ValueError("not a literal: a huge int")
        case ast.Constant(value=value) if value is not ...:
            return value
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.List(elts=items):
            return [_value(item, names) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item, names) for item in items)
        case ast.Set(elts=items):
            return {_value(item, names) for item in items}
        case ast.Call(func=ast.Name(id="set"), args=[], keywords=[]):
            return set()
        case ast.Call(func=ast.Name(id="range"), args=[_, *_] as items, keywords=[]):
            found = range(*(_value(item, names) for item in items))
            len(found)  # OverflowError where it has more items than Python can count
            return found
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {_value(k, names): _value(v, names) for k, v in zip(keys, values) if k is not None}
    return _number(node, names)


def _number(node: ast.expr, names: dict[str, float]) -> Any:
    """A sign before a number, and the sum that a complex number is written as."""
    match node:
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=inner):
            value = _value(inner, names)
            if type(value) in (int, float, complex):
                return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as sign, right=ast.Constant(value=complex() as imaginary)):
            real = _value(left, names)
            if type(real) in (int, float):
                return (operator.add if isinstance(sign, ast.Add) else operator.sub)(real, imaginary)
    raise ValueError(f"not a literal: {type(node).__name__}")
