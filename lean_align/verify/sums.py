r"""Sums of monomials: an exact normal form in which equal means the same.

A monomial is q sqrt(r) x^a y^b ..., with q a fraction, r an integer free of squares, and integer exponents of either
sign; `\pi` and e are letters like x, and i is one with i^2 = -1.  Different monomials are linearly independent over
the fractions, so a sum is zero only where every q is.  (Of e and `\pi` together that is not proven, only believed.)

Every operation raises `NotExactError` where its result would not be such a sum, or would pass the limits below.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

MAX_TERMS, MAX_PRODUCTS, MAX_BITS, MAX_POWER = 60, 600, 2_000, 20
"""Terms of a sum, products of terms in a multiplication, bits of a coefficient, exponent of a power."""
MAX_RADICAND = 10**8
"""Square factors are found by trial division: 10,000 divisions at most."""

Monomial = tuple[int, tuple[tuple[str, int], ...]]
Sum = dict[Monomial, Fraction]
_ONE: Monomial = (1, ())


class NotExactError(Exception):
    """The formula has no exact form here; math-verify has to judge it."""


def constant(value: Fraction | int) -> Sum:
    """A number."""
    return {_ONE: Fraction(value)} if value else {}


def letter(name: str) -> Sum:
    """A variable, `\\pi`, e or i."""
    return {(1, ((name, 1),)): Fraction(1)}


def as_fraction(value: Sum) -> Fraction:
    """The value of a sum that is a fraction."""
    if any(key != _ONE for key in value):
        raise NotExactError
    return value.get(_ONE, Fraction(0))


def add(a: Sum, b: Sum, sign: int = 1) -> Sum:
    """a + sign * b."""
    total = dict(a)
    for key, number in b.items():
        total[key] = total.get(key, Fraction(0)) + sign * number
    return _bounded(total)


def multiply(a: Sum, b: Sum) -> Sum:
    """The product, multiplied out."""
    if len(a) * len(b) > MAX_PRODUCTS:
        raise NotExactError
    total: Sum = {}
    for left, p in a.items():
        for right, q in b.items():
            key, factor = _monomial_product(left, right)
            total[key] = total.get(key, Fraction(0)) + factor * p * q
    return _bounded(total)


def power(value: Sum, exponent: Fraction) -> Sum:
    """The power with an integer exponent."""
    if exponent.denominator != 1 or abs(exponent) > MAX_POWER:
        raise NotExactError
    base, total = inverse(value) if exponent < 0 else value, constant(1)
    if not base and not exponent:  # 0^0
        raise NotExactError
    for _ in range(abs(int(exponent))):
        total = multiply(total, base)
    return total


def inverse(value: Sum) -> Sum:
    """1 / (q sqrt(r) x^a) = sqrt(r) x^-a / (q r); divisors of several terms have no exact form here."""
    if len(value) != 1:
        raise NotExactError
    (((radicand, letters), number),) = value.items()
    turned = tuple((name, -exponent) for name, exponent in letters)
    return multiply({(radicand, turned): 1 / (number * radicand)}, constant(1))


def root(value: Sum, degree: int) -> Sum:
    """The square root of a fraction, i times that of its opposite where it is negative; a higher root that is whole."""
    number = as_fraction(value)
    if degree != 2:
        return constant(Fraction(_whole_root(number.numerator, degree), _whole_root(number.denominator, degree)))
    if not number:
        return {}
    outside, radicand = _square_part(abs(number.numerator) * number.denominator)
    found: Sum = {(radicand, ()): Fraction(outside, number.denominator)}
    return multiply(found, letter("i")) if number < 0 else found


def _bounded(value: Sum) -> Sum:
    kept = {key: number for key, number in value.items() if number}
    bits = max((number.numerator.bit_length() + number.denominator.bit_length() for number in kept.values()), default=0)
    if len(kept) > MAX_TERMS or bits > MAX_BITS or any(key[0] > MAX_RADICAND**2 for key in kept):
        raise NotExactError
    return kept


def _monomial_product(a: Monomial, b: Monomial) -> tuple[Monomial, int]:
    common, sign, powers = math.gcd(a[0], b[0]), 1, dict(a[1])
    for name, exponent in b[1]:
        powers[name] = powers.get(name, 0) + exponent
    if "i" in powers:
        sign = -1 if powers["i"] % 4 in (2, 3) else 1
        powers["i"] %= 2
    letters = tuple(sorted((name, exponent) for name, exponent in powers.items() if exponent))
    return (a[0] * b[0] // common**2, letters), sign * common


@lru_cache(maxsize=1024)
def _square_part(number: int) -> tuple[int, int]:
    """(s, r) with number = s^2 r and r free of squares."""
    if number > MAX_RADICAND:
        raise NotExactError
    outside, radicand, divisor = 1, 1, 2
    while divisor * divisor <= number:
        count = 0
        while number % divisor == 0:
            number, count = number // divisor, count + 1
        outside, radicand = outside * divisor ** (count // 2), radicand * divisor ** (count % 2)
        divisor += 1
    return outside, radicand * number


def _whole_root(number: int, degree: int) -> int:
    if not 3 <= degree <= 9 or not 0 <= number <= MAX_RADICAND:
        raise NotExactError
    found: int = round(number ** (1 / degree))
    if found**degree != number:
        raise NotExactError
    return found
