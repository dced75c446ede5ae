r"""A formula's tokens as a sum of monomials (sums.py): recursive descent, or `NotExactError`.

Read: numbers, `0.1\overline{6}`, letters with or without a subscript, Greek letters, + - * /, products without a sign,
parentheses, powers with an integer exponent, `\frac`, `\sqrt`, `\sqrt[n]`.

Refused, because it is ambiguous: 1/2x, 1/ab, 2 3, 2\frac{1}{2} inside a formula, x^23, f(x).  Refused, because
unknown: words, and every other command.
"""

from __future__ import annotations

from fractions import Fraction

from lean_align.verify import sums
from lean_align.verify.latex import Tokens
from lean_align.verify.sums import NotExactError, Sum

MAX_DEPTH, MAX_DIGITS = 20, 40
"""Parentheses, braces and arguments inside one another, and digits of a number, beyond which nothing is exact."""

_GREEK = "pi alpha beta gamma delta theta lambda mu omega phi rho sigma tau epsilon eta kappa psi chi xi"
LETTERS = frozenset("\\" + name for name in _GREEK.split())
_NOT_A_PRODUCT = frozenset("ln lg or to in of is if no on so as at by".split())
_FUNCTIONS = frozenset("fghpqFGHPQ")
_STARTS_A_FACTOR = frozenset((*LETTERS, "(", "{", r"\frac", r"\sqrt"))


def exact(tokens: Tokens) -> Sum:
    """The normal form of a formula.

    Raises
    ------
    NotExactError : it has none here.
    """
    reader = _Reader(tokens)
    value = reader.sum()
    reader.expect_end()
    return value


class _Reader:
    def __init__(self, tokens: Tokens) -> None:
        self._rest = list(reversed(tokens))
        self._last = ""  # the token that was taken last
        self._depth = 0

    def expect_end(self) -> None:
        if self._rest:
            raise NotExactError

    def _peek(self) -> str:
        return self._rest[-1] if self._rest else ""

    def _take(self, wanted: str = "") -> str:
        if not self._rest or (wanted and self._rest[-1] != wanted):
            raise NotExactError
        self._last = self._rest.pop()
        return self._last

    def sum(self) -> Sum:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotExactError
        total = self._signed({}, first=True)
        while self._peek() in ("+", "-"):
            total = self._signed(total)
        self._depth -= 1
        return total

    def _signed(self, total: Sum, first: bool = False) -> Sum:
        sign = 1
        if not first or self._peek() in ("+", "-"):
            sign = -1 if self._take() == "-" else 1
        return sums.add(total, self._product(), sign)

    def _product(self) -> Sum:
        opening, total, divided = self._peek(), self._factor(), False
        while True:
            token = self._peek()
            if token in ("*", "/"):
                divided = self._take() == "/" or divided
                if divided and len(self._peek()) > 1 and self._peek().isalpha():  # 1/ab
                    raise NotExactError
                factor = self._factor()
                total = sums.multiply(total, factor if token == "*" else sums.inverse(factor))
            elif self._starts_a_factor(token, opening):
                if divided:
                    raise NotExactError
                total = sums.multiply(total, self._factor())
            else:
                return total

    def _starts_a_factor(self, token: str, before: str) -> bool:
        """Whether a product goes on without a sign; with a number only behind `\\frac{1}{2}` or `\\sqrt{2}`."""
        if token[:1].isdigit():
            return before == r"\frac" or (before == r"\sqrt" and self._last == "}")
        return token in _STARTS_A_FACTOR or (token.isascii() and token.isalpha())

    def _factor(self) -> Sum:
        base = self._base()
        if self._peek() != "^":
            return base
        self._take()
        exponent = self._group("{", "}") if self._peek() == "{" else self._digit()
        return sums.power(base, sums.as_fraction(exponent))

    def _digit(self) -> Sum:
        token = self._take()
        if len(token) != 1:
            raise NotExactError
        return sums.constant(_number(token))

    def _group(self, opening: str, closing: str) -> Sum:
        self._take(opening)
        value = self.sum()
        self._take(closing)
        return value

    def _base(self) -> Sum:
        before, token = self._last, self._peek()
        if token in ("(", "{"):
            return self._group(token, ")" if token == "(" else "}")
        self._take()
        if token == r"\frac":
            top, bottom = self._argument(), self._argument()
            if before[:1].isdigit() and top.keys() | bottom.keys() == sums.constant(1).keys():  # mixed, or a product?
                raise NotExactError
            return sums.multiply(top, sums.inverse(bottom))
        if token == r"\sqrt":
            return self._root()
        if token in LETTERS or token.isalpha():
            return self._letters(token)
        return sums.constant(self._repeating(token))

    def _argument(self) -> Sum:
        """What a command takes: a group or one token, of a number its first digit."""
        if self._peek() == "{":
            return self._group("{", "}")
        token = self._take()
        if token.isdecimal():
            self._rest += [token[1:]] if token[1:] else []
            return sums.constant(_number(token[0]))
        if token in LETTERS or (len(token) == 1 and token.isalpha()):
            return sums.letter(token)
        raise NotExactError

    def _root(self) -> Sum:
        degree = 2
        if self._peek() == "[":
            self._take()
            degree = int(_number(self._take()))
            self._take("]")
        if self._peek() == "(":
            return sums.root(self._group("(", ")"), degree)
        return sums.root(self._argument(), degree)

    def _letters(self, run: str) -> Sum:
        if run not in LETTERS and (len(run) > 2 or run in _NOT_A_PRODUCT or not run.isascii()):
            raise NotExactError
        names = [run] if run in LETTERS else list(run)
        if self._peek() == "_":
            self._take()
            names[-1] += "_" + self._subscript()
        elif self._peek() == "(" and names[-1] in _FUNCTIONS:
            raise NotExactError
        if self._peek() == "^" and len(names) > 1:  # in ab^2 the exponent is b's
            self._rest.append(names.pop())
        total = sums.constant(1)
        for name in names:
            total = sums.multiply(total, sums.letter(name))
        return total

    def _subscript(self) -> str:
        if self._peek() != "{":
            return self._take()
        self._take()
        name = self._take()
        self._take("}")
        return name

    def _repeating(self, token: str) -> Fraction:
        """A number; 0.1 and a bar over 6 are 1/10 + 6/90."""
        value, bar = _number(token), [r"\overline", "."]
        if self._rest[-2:] == bar:
            self._take()
        elif self._peek() != r"\overline" or "." not in token:
            return value
        self._take()
        digits = self._subscript()
        if self._last != "}" and len(digits) != 1:  # without braces the bar is over one digit
            raise NotExactError
        places = len(token.partition(".")[2])
        return value + _number(digits) / (Fraction(10) ** (len(digits) + places) - Fraction(10) ** places)


def _number(token: str) -> Fraction:
    if not token.isascii() or len(token) > MAX_DIGITS or not token.replace(".", "", 1).isdecimal():
        raise NotExactError
    return Fraction(token)
