"""Which operands are tested, and in what order: all of them where that is few, else groups of increasing chance.

Every draw comes from the seed through `lowp.rounding.random_bits`, so the cases are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import islice, product

from lowp.emulation.exact_functions import magnitude
from lowp.formats import Block, Codebook, Float, ScalarFormat
from lowp.formats.exact_real import Real
from lowp.formats.spec import Meaning
from lowp.formats.text import special_codes
from lowp.rounding import exact
from lowp.rounding.random_bits import word
from lowp.vector_files.semantics import Semantics

#: All combinations of operands are tested up to this many bits of all operands together.
EXHAUSTIVE_BITS = 16
#: Cases of a level by default.
LEVEL_COUNTS = {1: 2048, 2: 16384}
#: Groups in their order, the share of the cases that each takes at most, and what is in it.
GROUPS = {
    "exhaustive": (1.0, "all operands, ascending codes, the last operand fastest"),
    "landmarks": (
        0.25,
        "operands among zeros, NaN, infinities, 1, 2, 1/2, 3/2, 1/3, the largest and smallest values of either sign "
        "and the codes beside them; level 2 also single bits, runs of ones and (floats) the ends of every exponent",
    ),
    "aimed": (
        0.35,
        "the last operand solves for a result at a value, at the middle of two, at zero, at a power of two, or at the "
        "overflow or underflow threshold; it is taken as rounded, one code below, or one above",
    ),
    "short": (0.15, "codes that end in many zeros, so that results are often exact or exact ties"),
    "random": (
        1.0,
        "random codes, half of the first operands near 1; in half of the cases the others differ from the first in low "
        "bits and sign alone",
    ),
}
Case = tuple[int, ...]


class Draw:
    """Random numbers of a seed, one after the other."""

    def __init__(self, seed: int) -> None:
        self.seed, self.position = seed, 0

    def bits(self, count: int) -> int:
        """Return a number of `count` random bits."""
        value = 0
        for _ in range(0, count, 32):
            value = value << 32 | word(self.seed, self.position)
            self.position += 1
        return value & ((1 << count) - 1)

    def below(self, end: int) -> int:
        """Return a number below `end`, all as likely but for 1 in 2^32."""
        return self.bits(end.bit_length() + 32) % end

    def of(self, items: Sequence[int]) -> int:
        """Return one of the items."""
        return items[self.below(len(items))]


def is_exhaustive(semantics: Semantics) -> bool:
    """Whether the operands are few enough to test all."""
    if semantics.length is not None:
        return False
    return _total_bits(semantics) <= EXHAUSTIVE_BITS


def level_count(semantics: Semantics, level: int) -> int:
    """Return how many cases a level has by default; fewer where each is a long row of numbers."""
    return LEVEL_COUNTS[level] // max(1, (semantics.length or 1) // 4)


def cases(semantics: Semantics, level: int, seed: int, count: int | None) -> Iterator[tuple[str, Case]]:
    """Yield cases with the names of their groups, endlessly where they are not exhaustive; some may come twice."""
    draw = Draw(seed)
    if is_exhaustive(semantics) and (count is None or count >= 1 << _total_bits(semantics)):
        codes = product(range(1 << semantics.operand.bits), repeat=_operand_count(semantics))
        yield from (("exhaustive", _with_words(case, semantics, draw)) for case in codes)
        return
    wanted = level_count(semantics, level) if count is None else count
    makers: dict[str, Callable[[Semantics, int, Draw], Iterator[Case]]]
    makers = {"landmarks": _landmark_cases, "aimed": _aimed_cases, "short": _short_cases, "random": _random_cases}
    if semantics.operation == "block_quantize":
        makers = {"landmarks": _landmark_blocks, "aimed": _aimed_blocks, "random": _random_blocks}
    for group, maker in makers.items():
        attempts = (
            8 * wanted if group == "random" else int(GROUPS[group][0] * wanted)
        )  # some come twice or are left out
        made = islice(maker(semantics, level, draw), attempts)
        yield from ((group, _with_words(case, semantics, draw)) for case in made)


def _total_bits(semantics: Semantics) -> int:
    return semantics.operand.bits * _operand_count(semantics)


def _with_words(case: Case, semantics: Semantics, draw: Draw) -> Case:
    """Return a case with its random words, if it takes some."""
    words = semantics.operands[-1].size if semantics.stochastic else 0
    return (*case, *(draw.bits(32) for _ in range(words)))


def _operand_count(semantics: Semantics) -> int:
    return sum(c.size for c in semantics.operands if c.name != "random")


@lru_cache(maxsize=64)
def landmark_codes(fmt: ScalarFormat, level: int) -> tuple[int, ...]:
    """Return the codes at which formats and programs go wrong, ascending."""
    points: list[Meaning] = [Fraction(n) for n in (0, 1, -1, 2, -2)]
    points += [Fraction(n, d) for n, d in ((1, 2), (-1, 2), (3, 2), (-3, 2), (1, 3), (-1, 3))] + ["-0", "inf", "-inf"]
    if isinstance(fmt, Float):
        points += [sign * Fraction(2) ** fmt.emin for sign in (1, -1)]
    found = {exact.encode(x, fmt) for x in points}
    found |= {exact.encode(Fraction(sign, 1 << 40000), fmt, "away_from_zero") for sign in (1, -1)}  # least magnitudes
    found |= {1 << (fmt.bits - 1), (1 << fmt.bits) - 1}
    found |= {code + step & (1 << fmt.bits) - 1 for code in found for step in (1, -1)}
    found |= {end for runs in special_codes(fmt).values() for run in runs for end in (run[0], run[-1])}
    if level == 2:
        found |= _patterns(fmt)
    return tuple(sorted(found))


def _patterns(fmt: ScalarFormat) -> set[int]:
    """Return single bits, runs of ones from either end, and for floats the ends of every exponent or some of them."""
    bits, everything = fmt.bits, (1 << fmt.bits) - 1
    found = {1 << k for k in range(bits)} | {(1 << k) - 1 for k in range(1, bits)}
    found |= {everything ^ code for code in found}
    if isinstance(fmt, Float):
        m, exponents = fmt.mantissa_bits, 1 << fmt.exponent_bits
        for exponent in range(0, exponents, max(1, exponents // 64)):
            found |= {exponent << m, (exponent << m) + (1 << m) - 1}
    return found


def _landmark_cases(semantics: Semantics, level: int, draw: Draw) -> Iterator[Case]:
    """All combinations if the group holds them, else picks."""
    codes, count = landmark_codes(semantics.operand, level), _operand_count(semantics)
    if len(codes) ** count <= GROUPS["landmarks"][0] * LEVEL_COUNTS[level]:
        yield from product(codes, repeat=count)
        return
    while True:
        yield tuple(draw.of(codes) for _ in range(count))


def _short_cases(semantics: Semantics, level: int, draw: Draw) -> Iterator[Case]:
    bits = semantics.operand.bits
    while True:
        zeros = [draw.below(max(1, bits - 2)) for _ in range(_operand_count(semantics))]
        yield tuple(draw.bits(bits - z) << z for z in zeros)


def _random_cases(semantics: Semantics, level: int, draw: Draw) -> Iterator[Case]:
    fmt, count = semantics.operand, _operand_count(semantics)
    while True:
        if semantics.operation == "dot":
            yield tuple(moderate_code(fmt, draw) for _ in range(count))
            continue
        first = draw.bits(fmt.bits) if draw.bits(1) else moderate_code(fmt, draw)
        if draw.bits(1):
            yield (first, *(draw.bits(fmt.bits) for _ in range(count - 1)))
        else:
            yield (first, *(_changed(first, fmt, draw) for _ in range(count - 1)))


def _changed(code: int, fmt: ScalarFormat, draw: Draw) -> int:
    """Return a code with other low bits, and perhaps another sign."""
    changed = code ^ draw.bits(1 + draw.below(fmt.bits))
    return _negated(changed, fmt) if draw.bits(1) else changed


def moderate_code(fmt: ScalarFormat, draw: Draw) -> int:
    """Return the code of a number not far from 1 in magnitude."""
    code = exact.encode(1, fmt) ^ draw.bits(min(fmt.bits - 1, fmt.bits // 2 + 2))
    return _negated(code, fmt) if draw.bits(1) else code


def _negated(code: int, fmt: ScalarFormat) -> int:
    value = fmt.meaning(code)
    return code if isinstance(value, str) or not fmt.signed else exact.encode(-value, fmt)


# Aimed at results


def _aimed_cases(semantics: Semantics, level: int, draw: Draw) -> Iterator[Case]:
    result, fmt = semantics.result, semantics.operand
    assert isinstance(result, ScalarFormat)
    if semantics.operation not in _SOLVERS:
        return
    while True:
        goal = _goal(result, draw)
        others = [_partner(goal, fmt, draw) for _ in range(_operand_count(semantics) - 1)]
        if semantics.operation == "dot":
            others[len(others) // 2] = exact.encode(1, fmt)  # the last of a, which multiplies what is solved for
        last = _solved(semantics.operation, goal, [fmt.meaning(code) for code in others])
        if last is not None:
            code = exact.encode(last, fmt) + draw.below(3) - 1
            yield (*others, code & (1 << fmt.bits) - 1)


def _goal(fmt: ScalarFormat, draw: Draw) -> Fraction | Real:
    """Return a number to hit: a value, the middle of two neighbouring codes, zero, a power of two, a threshold."""
    kind = draw.below(8)
    if kind == 0:
        return Fraction(0)
    if kind == 1:
        return Fraction(2) ** (draw.below(13) - 6) * (1 - 2 * draw.bits(1) * fmt.signed)
    codes = landmark_codes(fmt, 1)
    code = draw.of(codes) if kind < 4 else moderate_code(fmt, draw) if kind < 6 else draw.bits(fmt.bits)
    value, following = fmt.meaning(code), fmt.meaning(code + 1 & (1 << fmt.bits) - 1)
    if isinstance(value, str):
        return Fraction(0)
    if isinstance(following, str) or magnitude(following) < magnitude(value):  # past the last code the steps go on
        before = fmt.meaning(code - 1) if code else "nan"
        following = value if isinstance(before, str) else value + (value - before)
    return value if draw.below(4) == 0 else (value + following) / 2


def _partner(goal: Fraction | Real, fmt: ScalarFormat, draw: Draw) -> int:
    """Return the code of an operand: a small multiple of the goal, a moderate number, or anything finite."""
    kind = draw.below(4)
    if kind < 2 and goal != 0:
        return exact.encode(goal * Fraction(draw.below(128) - 64, 1 << draw.below(8)), fmt)
    code = moderate_code(fmt, draw) if kind < 3 else draw.bits(fmt.bits)
    return exact.encode(1, fmt) if isinstance(fmt.meaning(code), str) else code


def _solved(operation: str, goal: Fraction | Real, others: list[Meaning]) -> Fraction | Real | None:
    """Return the last operand of an operation with a given result, if there is one."""
    numbers = [Fraction(0) if isinstance(x, str) else x for x in others]
    try:
        return _SOLVERS[operation](goal, *numbers)
    except ArithmeticError:  # a division by zero, or by a sum of several powers
        return None


def _quotient(x: Fraction | Real, y: Fraction | Real) -> Fraction | Real:
    if y == 0:
        raise ZeroDivisionError
    return x / y


def _solve_dot(goal: Fraction | Real, *others: Fraction | Real) -> Fraction | Real:
    """Return the last number of b; the last one of a is 1."""
    half = len(others) // 2
    rest = goal
    for a, b in zip(others[:half], others[half + 1 :], strict=True):
        rest = rest - a * b
    return rest


_SOLVERS: dict[str, Callable[..., Fraction | Real]] = {
    "convert": lambda goal: goal,
    "negative": lambda goal: -goal,
    "sqrt": lambda goal: goal * goal,
    "add": lambda goal, a: goal - a,
    "subtract": lambda goal, a: a - goal,
    "multiply": _quotient,
    "divide": lambda goal, a: _quotient(a, goal),
    "fma": lambda goal, a, b: goal - a * b,
    "dot": _solve_dot,
}


# Blocks: finite numbers only


def _landmark_blocks(semantics: Semantics, level: int, draw: Draw) -> Iterator[Case]:
    codes = landmark_codes(semantics.operand, level)
    while True:
        yield tuple(_finite(draw.of(codes), semantics.operand) for _ in range(_operand_count(semantics)))


def _aimed_blocks(semantics: Semantics, level: int, draw: Draw) -> Iterator[Case]:
    """Blocks under a power-of-two scale whose elements lie at values, middles and beside them."""
    fmt, target = semantics.operand, semantics.result
    element = target.element if isinstance(target, Block) else Codebook([-2.0, -1.0, 0.0, 1.0, 2.0])
    while True:
        scale = Fraction(2) ** (draw.below(17) - 8)
        goals = [Fraction(element.max), *(_goal(element, draw) for _ in range(_operand_count(semantics) - 1))]
        codes = [exact.encode(goal * scale, fmt) + (draw.below(8) == 0) for goal in goals]
        position = draw.below(len(codes))
        codes[0], codes[position] = codes[position], codes[0]
        yield tuple(_finite(code, fmt) for code in codes)


def _random_blocks(semantics: Semantics, level: int, draw: Draw) -> Iterator[Case]:
    fmt, count = semantics.operand, _operand_count(semantics)
    while True:
        wild = draw.below(4) == 0
        codes = (draw.bits(fmt.bits) if wild else moderate_code(fmt, draw) for _ in range(count))
        yield tuple(_finite(code, fmt) for code in codes)


def _finite(code: int, fmt: ScalarFormat) -> int:
    """Return the code, or that of 1 where it is no finite number."""
    code &= (1 << fmt.bits) - 1
    return exact.encode(1, fmt) if fmt.meaning(code) in ("nan", "inf", "-inf") else code
