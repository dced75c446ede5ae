r"""Recipe files and `--set` values as plain trees in which no text has been guessed to be something else.

YAML 1.1 reads `off`, `on`, `yes` and `no` as booleans, `010` as 8 and `1:30` as 90.  Here a scalar without quotes is a
`Plain` text until the type of its key is known; then it is read as that type:

- a text or a choice is taken as it is written;
- a whole number is decimal, `1_000` is 1000; a float may lack its dot, `1e-5`;
- a boolean is one of true, false, yes, no, on, off; `null`, `~` and nothing at all are null where the key may be null;
- a list is a YAML list, or its items with commas between them.

In `--set KEY=VALUE` the value of a text key is the text itself: `#`, backslashes and line breaks have no meaning.  One
pair of quotes around all of it is taken off, which is also how the text "null" is given.
"""

from __future__ import annotations

import re
import reprlib
import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml

from lean_align.errors import RecipeError

_NULL = frozenset(("null", "Null", "NULL", "~", ""))
_TRUE, _FALSE = frozenset(("true", "yes", "on")), frozenset(("false", "no", "off"))
_NAMES = {"tuple": "a list", "dict": "a mapping"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 200
_SHOWN.maxlist = _SHOWN.maxtuple = _SHOWN.maxdict = 12


class Plain(str):
    """A scalar without quotes, whose type its key will decide."""


class _Loader(yaml.SafeLoader):
    """Reads every scalar without quotes as `Plain`; `<<` still merges."""

    yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile("<<"))]}  # noqa: RUF012

    def construct_scalar(self, node: Any) -> Any:
        text = super().construct_scalar(node)
        return Plain(text) if isinstance(node, yaml.ScalarNode) and node.style is None else text


_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_scalar)


def read_tree(path: Path) -> dict[str, Any]:
    """The tree of a recipe file, its unquoted scalars as `Plain`.

    Raises
    ------
    RecipeError
        When the file is no YAML or no mapping, is nested too deeply, or gives a key twice.
    """
    try:
        tree = _read(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, RecipeError):
            raise RecipeError(f"{path}{error}") from error
        raise RecipeError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        kind = "nothing" if tree is None else "a text" if isinstance(tree, str) else type(tree).__name__
        raise RecipeError(f"{path} holds {kind}; expected a mapping of recipe keys.")
    return tree


def read_setting(key: str, hint: Any, text: str) -> Any:
    """The value of a `KEY=VALUE` for a key of the type `hint`, as `converted` takes it.

    Raises
    ------
    RecipeError
        When a list or a mapping is not valid YAML.
    """
    options = _options(hint)
    if str in options:
        # an empty text is a null where there can be one, as in a recipe file
        return Plain(text) if type(None) in options and text in _NULL else _without_quotes(text)
    given, text = text.strip(), _without_quotes(text.strip())
    if Any in options and text != given:
        return text
    if not text.startswith(("[", "{")):
        return Plain(text) if text or not any(get_origin(option) is tuple for option in options) else []
    try:
        return _read(text)
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{key} is {shown(text)}, which is not a valid YAML list; expected A,B or [A, B].") from error


def converted(hint: Any, value: Any, key: str) -> Any:
    """A value as the type of its key.

    Raises
    ------
    RecipeError
        When it is of another type.
    """
    options = _options(hint)
    if isinstance(value, Plain) and value in _NULL:
        value = None
    if value is None and type(None) in options:
        return None
    wanted = next(option for option in options if option is not type(None))
    if get_origin(wanted) is tuple:
        items = _items(value)
        if items is not None:
            return tuple(converted(get_args(wanted)[0], item, key) for item in items)
    elif get_origin(wanted) is dict or wanted is dict:
        if isinstance(value, dict):
            return {str(name): untyped(item) for name, item in value.items()}
    elif wanted is str and isinstance(value, str):
        return _whole_text(str(value), key)
    else:
        read = _number(wanted, value)
        if read is not None:
            return read
    kind = "str" if isinstance(value, str) else type(value).__name__
    expected = " or ".join("null" if o is type(None) else _NAMES.get(o.__name__, o.__name__) for o in options)
    raise RecipeError(f"{key} is {shown(value)} ({kind}); expected {expected}.")


def untyped(value: Any) -> Any:
    """A value whose key has no type of its own: without quotes a number, a boolean or null where it reads as one."""
    if isinstance(value, dict):
        return {str(name): untyped(item) for name, item in value.items()}
    if isinstance(value, list):
        return [untyped(item) for item in value]
    if not isinstance(value, Plain):
        return value
    if value in _NULL:
        return None
    for kind in (bool, int, float):
        read = _number(kind, value)
        if read is not None:
            return read
    return str(value)


def shown(value: Any) -> str:
    """A value for a message, cut where it is long."""
    return _SHOWN.repr(str(value) if isinstance(value, Plain) else value)


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _items(value: Any) -> list[Any] | None:
    """The items of a list, or of a text with commas."""
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, str):
        return [Plain(item.strip()) for item in value.split(",")] if value.strip() else []
    return None


def _number(wanted: Any, value: Any) -> Any:
    """A value as int, float or bool; None where it is not one."""
    if wanted is bool:
        if isinstance(value, Plain) and value.lower() in _TRUE | _FALSE:
            return value.lower() in _TRUE
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or value is None:
        return None
    try:
        if wanted is int:
            return int(value) if isinstance(value, Plain) else value if isinstance(value, int) else None
        if wanted is float and isinstance(value, int | float | str):
            text = value.lower().replace(".inf", "inf").replace(".nan", "nan") if isinstance(value, str) else value
            return float(text)
    except ValueError:
        return None
    return value if isinstance(wanted, type) and isinstance(value, wanted) else None


def _without_quotes(text: str) -> str:
    quote = text[:1]
    quoted = quote in ("'", '"') and len(text) > 1 and text[-1] == quote and quote not in text[1:-1]
    return text[1:-1] if quoted else text


def _whole_text(text: str, key: str) -> str:
    if _SURROGATE.search(text):
        raise RecipeError(f"{key} holds half of a character (a lone surrogate); expected text in UTF-8.")
    return text


def _read(text: str) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_duplicates(node, "", set())
        return loader.construct_document(node)
    except RecursionError as error:
        raise RecipeError(" is nested too deeply; a recipe has sections of keys, nothing deeper.") from error
    finally:
        loader.dispose()


def _refuse_duplicates(node: Any, prefix: str, inside: set[int]) -> None:
    if not isinstance(node, yaml.CollectionNode) or id(node) in inside:
        return
    inside.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(item, prefix, inside)
        return
    lines: dict[str, int] = {}
    for name, value in node.value:
        if isinstance(name, yaml.ScalarNode):
            key, line = prefix + name.value, name.start_mark.line + 1
            if key in lines and name.value != "<<":
                raise RecipeError(f" gives the key {key!r} twice, on line {lines[key]} and on line {line}; keep one.")
            lines[key] = line
            _refuse_duplicates(value, f"{key}.", inside)
