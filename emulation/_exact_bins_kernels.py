"""Exact sums of products: operands cut into slices whose products sum without error, sums kept in bins; compiled.

A number is `significand * 2^exponent`. A bin holds 32 bits of a sum's two's complement at its own weight, in an int64,
so that many numbers can be added to it before its carries are passed on. Kernels take rows `start` to `stop`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lowp.emulation._stored_kernels import _bit_length, _store

EXACT, ODD, OPEN = range(3)
#: Columns of `SURVEY`: exponents of the lowest bit that is set, above the highest, of the smallest number's highest;
#: the most significant bits of a number; whether something is not finite.
LOW, HIGH, LEAST, WIDTH, SPECIAL = range(5)
_FAR = 1 << 20
_MASK = (1 << 32) - 1
_FRACTION = (1 << 52) - 1
#: Columns that share the cache while products are added to bins one by one.
_TILE = 64

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")


@_inline
def _parts(bits: int) -> Any:
    """Return the integer significand and the exponent of float64 bits; no significand where they are not finite."""
    field = (bits >> 52) & 0x7FF
    normal = np.int64(field != 0)
    significand = (bits & _FRACTION) | (normal << 52)
    return (np.int64(0) if field == 0x7FF else significand), field - 1074 - normal


@_inline
def _top(n: int) -> Any:
    """Return the exponent of the highest bit of an integer of 1 to 2^53, from its float64 number."""
    return (np.float64(n).view(np.int64) >> 52) - 1023


@_compile
def survey(bits: Any, rows: int, columns: int, out: Any, start: int, stop: int) -> None:
    """Write what `SURVEY` lists of blocks of `rows * columns` numbers; `start` and `stop` count rows of blocks."""
    for block in range(start, stop):
        for other in range(out.shape[1]):
            low, high, least, trailing, special = _FAR, -_FAR, _FAR, 53, np.int64(0)
            last = min((other + 1) * columns, bits.shape[1])
            for i in range(block * rows, min((block + 1) * rows, bits.shape[0])):
                for j in range(other * columns, last):
                    n, exponent = _parts(bits[i, j])
                    special |= np.int64((bits[i, j] >> 52) & 0x7FF == 0x7FF)
                    if n != 0:
                        top, bottom = _top(n), _top(n & -n)
                        low = min(low, exponent + bottom)
                        high = max(high, exponent + top + 1)
                        least = min(least, exponent + top)
                        trailing = min(trailing, bottom + 52 - top)
            out[block, other, 0], out[block, other, 1], out[block, other, 2] = low, high, least
            out[block, other, 3], out[block, other, 4] = 53 - trailing, special


@_compile
def cut(bits: Any, row: int, column: int, low: int, width: int, out: Any, start: int, stop: int) -> None:
    """Write digits of `width` bits of a block's numbers, from the one of weight `2^low` up: `out[i, digit, j]`."""
    mask = (np.int64(1) << width) - 1
    for i in range(start, stop):
        numbers = bits[row + i, column : column + out.shape[2]]
        for d in range(out.shape[1]):
            lowest, digits = low + d * width, out[i, d]
            for j in range(digits.size):
                n, exponent = _parts(numbers[j])
                up = exponent - lowest
                left, right = min(max(up, 0), 63), min(max(-up, 0), 63)
                digit = ((n >> right) << left) & mask
                minus = numbers[j] >> 63
                digits[j] = np.float64((digit ^ minus) - minus)


@_inline
def _pass_carries(bins: Any, i: int) -> None:
    """Pass the carries of one row of sums to the next bins; the last bin keeps the sign."""
    for k in range(bins.shape[1] - 1):
        for j in range(bins.shape[2]):
            carry = bins[i, k, j] >> 32
            bins[i, k, j] &= _MASK
            bins[i, k + 1, j] += carry


@_compile
def add_slices(
    products: Any, a_width: int, b_width: int, at: int, bins: Any, fresh: bool, start: int, stop: int
) -> None:
    """Add products of digits (`products[i, a's digit, b's digit, j]`), the lowest of weight `2^at`, to the bins."""
    for i in range(start, stop):
        if fresh:
            bins[i, :, :] = 0
        for s in range(products.shape[1]):
            for t in range(products.shape[2]):
                bit = at + s * a_width + t * b_width
                k, up = bit >> 5, bit & 31
                for j in range(bins.shape[2]):
                    n = np.int64(products[i, s, t, j])
                    bins[i, k, j] += (n << up) & _MASK
                    bins[i, k + 1, j] += n >> (32 - up)
        _pass_carries(bins, i)


@_compile
def pieces(
    bits: Any, row: int, column: int, width: int, drop: int, piece: int, low: int, n_out: Any, e_out: Any,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Write `piece` bits, from bit `drop` up, of signed significands of `width`, and their exponents over `low`."""
    mask = (np.int64(1) << piece) - 1
    for i in range(start, stop):
        for j in range(n_out.shape[1]):
            n, exponent = _parts(bits[row + i, column + j])
            if n == 0:
                n_out[i, j], e_out[i, j] = 0, 0
                continue
            up = width - 1 - _top(n)
            n = n << up if up >= 0 else n >> -up
            n = (n >> drop) & mask
            n_out[i, j] = -n if bits[row + i, column + j] < 0 else n
            e_out[i, j] = exponent - up + drop - low


@_compile
def add_each(
    a_n: Any, a_e: Any, b_n: Any, b_e: Any, narrow: bool, every: int, bins: Any, fresh: bool, start: int, stop: int
) -> None:  # fmt: skip
    """Add products one by one to the bins of their exponents; carries are passed on every so many terms.

    `narrow`: a product shifted by 31 bits, and `every` of them, fit one bin; else each product is cut in two.
    """
    size = np.uint64(bins.shape[1])
    five, low_five, mask = np.uint64(5), np.uint64(31), np.int64(_MASK)
    own = np.zeros(_TILE * bins.shape[1], np.int64)
    for i in range(start, stop):
        if fresh:
            bins[i, :, :] = 0
        for first in range(0, bins.shape[2], _TILE):
            count = min(_TILE, bins.shape[2] - first)
            own[:] = 0
            for k in range(a_n.shape[1]):
                x, e = np.int64(a_n[i, k]), np.int64(a_e[i, k])
                if x != 0:
                    numbers, exponents = b_n[k, first : first + count], b_e[k, first : first + count]
                    at = np.uint64(0)
                    if narrow:
                        for j in range(count):
                            bit = np.uint64(e + exponents[j])
                            own[at + (bit >> five)] += (x * numbers[j]) << np.int64(bit & low_five)
                            at += size
                    else:
                        for j in range(count):
                            bit = np.uint64(e + exponents[j])
                            n, up = x * numbers[j], np.int64(bit & low_five)
                            own[at + (bit >> five)] += (n << up) & mask
                            own[at + (bit >> five) + np.uint64(1)] += n >> (32 - up)
                            at += size
                if (k + 1) % every == 0 or k + 1 == a_n.shape[1]:
                    _move(own, bins, i, first, count)
        _pass_carries(bins, i)


@_compile
def _move(own: Any, bins: Any, i: int, first: int, count: int) -> None:
    """Add a tile's sums, their carries passed on, to the bins, and clear them."""
    size = bins.shape[1]
    for j in range(count):
        carry = np.int64(0)
        for k in range(size):
            n = own[j * size + k] + carry
            own[j * size + k] = 0
            carry = n >> 32 if k < size - 1 else np.int64(0)
            bins[i, k, first + j] += n - (carry << 32)


@_compile
def top_of(x: Any, size: int, base: int) -> Any:
    """Return sign, highest 62 bits, their exponent and whether more follow, of the bins of a sum; they are changed."""
    carry = np.int64(0)
    for k in range(size):
        n = x[k] + carry
        x[k] = n & _MASK
        carry = n >> 32
    negative = np.int64(carry < 0)
    if negative == 1:
        carry = np.int64(1)
        for k in range(size):
            n = (x[k] ^ _MASK) + carry
            x[k] = n & _MASK
            carry = n >> 32
    k = size - 1
    while k > 0 and x[k] == 0:
        k -= 1
    magnitude = x[k]
    if magnitude == 0:
        return negative, magnitude, base, np.int64(0)
    need = 62 - _bit_length(magnitude)
    exponent = base + 32 * k - need
    sticky = np.int64(0)
    while need > 0:
        k -= 1
        below = x[k] if k >= 0 else np.int64(0)
        take = min(need, 32)
        magnitude = (magnitude << take) | (below >> (32 - take))
        sticky |= below & ((np.int64(1) << (32 - take)) - 1)
        need -= take
    for lower in range(k):
        sticky |= x[lower]
    return negative, magnitude, exponent, np.int64(sticky != 0)


@_compile
def _gather(bins: Any, i: int, j: int, spare: int, x: Any) -> None:
    """Copy one sum's bins above `spare` empty ones."""
    x[:] = 0
    for k in range(bins.shape[1]):
        x[spare + k] = bins[i, k, j]


@_compile
def add_number(bits: int, base: int, x: Any) -> None:
    """Add a float64 number to a sum's bins; no bit of it is below `2^base`."""
    n, exponent = _parts(bits)
    up = exponent - base
    if up < 0:
        n, up = n >> min(-up, 63), np.int64(0)
    if n == 0:
        return
    n = -n if bits < 0 else n
    x[up >> 5] += (n << (up & 31)) & _MASK
    x[(up >> 5) + 1] += n >> (32 - (up & 31))


@_compile
def _divide(x: Any, size: int, divisor: int) -> None:
    """Divide bins, of a sum that is not negative, by an integer below 2^31.

    With three empty bins below a sum, a quotient that does not end there shows bits in them.
    """
    rest = np.int64(0)
    for k in range(size - 1, -1, -1):
        n = (rest << 32) | x[k]
        x[k] = n // divisor
        rest = n - x[k] * divisor


@_inline
def _odd(negative: int, magnitude: int, exponent: int, sticky: int) -> Any:
    """Return the float64 number rounded to odd of a sum's 62 highest bits, or of none, and its state."""
    if magnitude == 0:
        return 0.0, EXACT
    kept = magnitude >> 9
    lost = np.int64(magnitude & 511 != 0) | sticky
    top = exponent + 61
    short = -1022 - top  # bits that float64's subnormal numbers lack
    if top > 1023 or (short > 0 and (short > 52 or lost == 1 or kept & ((np.int64(1) << short) - 1) != 0)):
        return 0.0, OPEN
    value = np.ldexp(np.float64(kept | lost), np.int32(exponent + 9))
    return (-value if negative == 1 else value), (ODD if lost == 1 else EXACT)


@_compile
def finish_odd(
    bins: Any, base: int, c: Any, divisor: int, values: Any, state: Any, row: int, column: int, start: int, stop: int
) -> None:  # fmt: skip
    """Write the sums of bins and `c` (of no size: none), divided, as float64 rounded to odd, with states."""
    spare = 3 if divisor > 1 else 0
    size = bins.shape[1] + spare
    x = np.zeros(size, np.int64)
    for i in range(start, stop):
        for j in range(bins.shape[2]):
            _gather(bins, i, j, spare, x)
            if c.size > 0:
                add_number(c[row + i, column + j], base - 32 * spare, x)
            negative, magnitude, exponent, sticky = top_of(x, size, base - 32 * spare)
            if divisor > 1 and magnitude != 0:
                _divide(x, size, divisor)
                _, magnitude, exponent, sticky = top_of(x, size, base - 32 * spare)
            value, how = _odd(negative, magnitude, exponent, sticky)
            values[row + i, column + j], state[row + i, column + j] = value, how


@_compile
def finish_store(
    bins: Any, base: int, c: Any, plan: Any, values: Any, state: Any, row: int, column: int, start: int, stop: int
) -> None:  # fmt: skip
    """Write the sums of bins and `c` as the accumulator stores them; state: EXACT where a sum is zero, else ODD."""
    size = bins.shape[1]
    x = np.zeros(size, np.int64)
    for i in range(start, stop):
        for j in range(bins.shape[2]):
            _gather(bins, i, j, 0, x)
            if c.size > 0:
                add_number(c[row + i, column + j], base, x)
            negative, magnitude, exponent, sticky = top_of(x, size, base)
            if plan.wrap_bits > 0:
                magnitude, exponent, sticky = window(x, size, base, plan.least_bit - 2)
            state[row + i, column + j] = EXACT if magnitude == 0 and sticky == 0 else ODD
            values[row + i, column + j] = _store(negative, magnitude, exponent, sticky, plan)


@_compile
def window(x: Any, size: int, base: int, low: int) -> Any:
    """Return 60 bits from the weight `2^low` up of the bins of a sum without sign, `low`, and whether less follows."""
    magnitude, sticky = np.int64(0), np.int64(0)
    for k in range(size):
        up = base + 32 * k - low
        if up >= 60:
            break
        if up >= 0:
            magnitude |= x[k] << up
        elif up > -32:
            magnitude |= x[k] >> -up
            sticky |= x[k] & ((np.int64(1) << -up) - 1)
        else:
            sticky |= x[k]
    return magnitude & ((np.int64(1) << 60) - 1), low, np.int64(sticky != 0)


@_compile
def store_exact(sums: Any, plan: Any, values: Any, state: Any, start: int, stop: int) -> None:
    """Write sums that float64 holds exactly (`sums` are their bits) as the accumulator stores them."""
    for i in range(start, stop):
        for j in range(sums.shape[1]):
            n, exponent = _parts(sums[i, j])
            state[i, j] = EXACT if n == 0 else ODD
            values[i, j] = store(np.int64(sums[i, j] < 0), n, exponent, 0, plan)


@_inline
def store(negative: int, magnitude: Any, exponent: int, sticky: int, plan: Any) -> Any:
    """Store a sum; where only low bits are kept, one of high exponent is brought to the last bit's weight first."""
    if plan.wrap_bits > 0 and exponent > plan.least_bit:
        up = min(exponent - plan.least_bit, 63)
        magnitude = (magnitude << up) & ((np.int64(1) << 60) - 1) if up < 60 else np.int64(0)
        exponent = plan.least_bit
    return _store(negative, magnitude, exponent, sticky, plan)


@_compile
def sign_zeros(a: Any, b: Any, c: Any, down: bool, values: Any, state: Any, start: int, stop: int) -> None:
    """Give sums of exactly zero the sign that adding term by term to `c` (of no size: to the first term) gives.

    That is minus if every term is -0; where rounding is `down`, if not every term is +0.
    """
    for i in range(start, stop):
        for j in range(values.shape[1]):
            if values[i, j] != 0.0 or state[i, j] != EXACT:
                continue
            terms = a.shape[1] + (c.size > 0)
            all_alike = True
            if c.size > 0:
                all_alike = c[i, j] == 0.0 and np.signbit(c[i, j]) != down
            k = 0
            while all_alike and k < a.shape[1]:
                x, y = a[i, k], b[k, j]
                all_alike = (x == 0.0 or y == 0.0) and (np.signbit(x) != np.signbit(y)) != down
                k += 1
            values[i, j] = -0.0 if terms > 0 and all_alike != down else 0.0


@_compile
def mark_specials(
    a: Any, b: Any, c: Any, rows: Any, columns: Any, values: Any, state: Any, start: int, stop: int
) -> None:  # fmt: skip
    """Write NaN and infinities where operands of marked rows and columns, or `c`, are not finite."""
    for i in range(start, stop):
        for j in range(values.shape[1]):
            total = c[i, j] if c.size > 0 else 0.0
            if not (rows[i] or columns[j]) and abs(total) < np.inf:
                continue
            total = total if not abs(total) < np.inf else 0.0
            for k in range(a.shape[1]):
                x, y = a[i, k], b[k, j]
                if not (abs(x) < np.inf and abs(y) < np.inf):
                    total += _signed(x) * _signed(y)
                    if np.isnan(total):
                        break
            if not abs(total) < np.inf:
                values[i, j], state[i, j] = total, EXACT


@_inline
def _signed(x: float) -> Any:
    """Return a number of the same sign that is 1, zero, infinite or NaN."""
    return np.sign(x) if abs(x) < np.inf else x
