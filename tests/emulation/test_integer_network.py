"""Integer-only networks: against plain Python integers, against their emulations, and without any float."""

from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pytest

import lowp
from lowp.emulation import _integer_arithmetic, dyadic
from lowp.emulation._integer_steps import Add, Average, Flat, Largest, Product, Rectify, Requantise
from lowp.emulation.dyadic import (
    AveragePool2d,
    BatchNorm,
    Conv2d,
    Flatten,
    IntegerNetwork,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
)

IMAGES = np.random.default_rng(7).normal(size=(6, 2, 7, 6))


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape)


def layers() -> list[Any]:
    """A net with everything that there is: strides, padding, both kinds of shortcut, all pools."""
    norm = BatchNorm(draw(5), np.abs(draw(5)) + 0.1, draw(5), draw(5))
    return [
        Conv2d(draw(5, 2, 3, 3), padding=(1, 2)), norm, ReLU(), MaxPool2d(3, 2, 1),
        Residual([Conv2d(draw(5, 5, 3, 3), draw(5), padding=1), ReLU(), Conv2d(draw(5, 5, 1, 1), draw(5))]),
        ReLU(),
        Residual([Conv2d(draw(4, 5, 3, 3), stride=2, padding=1)], [Conv2d(draw(4, 5, 1, 1), draw(4), stride=2)]),
        ReLU(), AveragePool2d(2), Flatten(), Linear(draw(8, 4), draw(8)), ReLU(), Linear(draw(3, 8)),
    ]  # fmt: skip


# A second implementation: nested loops over Python integers and Fractions.


def rne(x: Fraction) -> int:
    return round(x)


def scale_of(source: Any, target: Any, channel: int) -> Fraction:
    """Return b / 2^c of a channel from the two scales, as HAWQ-V3's code has it."""
    scales = np.atleast_1d(source.scale).astype(np.float64)
    ratio = scales[channel if len(scales) > 1 else 0] / np.float64(target.scale)
    m, e = np.frexp(ratio)
    return Fraction(int(Fraction(float(m)) * 2**31 + Fraction(1, 2))) / Fraction(2) ** (31 - int(e))


def requantised(x: np.ndarray, source: Any, target: Any, low: int, high: int) -> np.ndarray:
    out = np.empty(x.shape, object)
    for index in np.ndindex(x.shape):
        out[index] = min(max(rne(int(x[index]) * scale_of(source, target, index[1])), low), high)
    return out


def convolved(x: np.ndarray, step: Product, pad: int) -> np.ndarray:
    (kh, kw), (sh, sw), (ph, pw) = step.window
    n, c, h, w = x.shape
    outputs = len(step.bias)
    out = np.empty((n, outputs, (h + 2 * ph - kh) // sh + 1, (w + 2 * pw - kw) // sw + 1), object)
    for at in np.ndindex(out.shape):
        total = int(step.bias[at[1]])
        for ch, i, j in np.ndindex(c, kh, kw):
            row, column = at[2] * sh + i - ph, at[3] * sw + j - pw
            if 0 <= row < h and 0 <= column < w:
                total += int(x[at[0], ch, row, column]) * int(step.weight[(ch * kh + i) * kw + j, at[1]])
        out[at] = (total + (1 << (pad - 1))) % (1 << pad) - (1 << (pad - 1))
    return out


def pooled(x: np.ndarray, window: Any, how: Any) -> np.ndarray:
    (kh, kw), (sh, sw), (ph, pw) = window
    h, w = x.shape[2:]
    out = np.empty((*x.shape[:2], (h + 2 * ph - kh) // sh + 1, (w + 2 * pw - kw) // sw + 1), object)
    for at in np.ndindex(out.shape):
        places = [(at[2] * sh + i - ph, at[3] * sw + j - pw) for i in range(kh) for j in range(kw)]
        out[at] = how([int(x[at[0], at[1], r, c]) for r, c in places if 0 <= r < h and 0 <= c < w])
    return out


def run_in_python(steps: Any, x: np.ndarray, seen: list[np.ndarray]) -> np.ndarray:
    for step in steps:
        low, high = int(step.output.format.min), int(step.output.format.max)
        if isinstance(step, Add):
            parts = [run_in_python(branch, x, seen) for branch in (step.main, step.shortcut)]
            a, b = (
                requantised(p, end, step.output, -(2**30), 2**30 - 1) for p, end in zip(parts, step.ends, strict=True)
            )
            x = np.clip(a + b, low, high)
        elif isinstance(step, Product) and step.window is None:
            x = x.astype(object) @ step.weight.astype(object) + step.bias.astype(object)
        elif isinstance(step, Product):
            x = convolved(x, step, step.output.format.bits)
        elif isinstance(step, Requantise):
            x = requantised(x, step.input, step.output, low, high)
        elif isinstance(step, Rectify):
            x = np.maximum(x, 0)
        elif isinstance(step, Largest):
            x = pooled(x, step.window, max)
        elif isinstance(step, Average):
            x = pooled(x, step.pool.window_of(x.shape), lambda v: int(Fraction(sum(v), len(v))))
        elif isinstance(step, Flat):
            x = x.reshape(len(x), -1)
        seen.append(x)
    return x


@pytest.mark.parametrize(("weights", "activations"), [(8, 8), (4, 4), ([8, 4, 4, 2, 4, 4, 8], [8, 4, 3, 4, 4, 4, 8])])
def test_every_step_against_python_integers(weights, activations):
    net = IntegerNetwork(layers(), IMAGES, weight_bits=weights, activation_bits=activations)
    codes, got, want = net.encode(IMAGES[:3]), [], []
    net.run_integers(codes, watch=lambda name, integers: got.append((name, integers)))
    run_in_python(net.steps, codes, want)
    assert len(got) == len(want)
    for (name, integers), reference in zip(got, want, strict=True):
        assert integers.tolist() == reference.tolist(), name


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("rounding", ["ties_to_even", "ties_to_positive", "toward_negative", "to_odd"])
def test_integers_emulation_and_fake_quantisation_agree(bits, rounding):
    net = IntegerNetwork(
        layers(),
        IMAGES,
        weight_bits=bits,
        activation_bits=bits,
        rounding=rounding,
        average_rounding=rounding,
        scale_bits=16,
    )
    x = 3 * draw(40, 2, 7, 6)  # beyond the calibration: much saturates
    found = net.check(x)
    assert found, str(found)
    assert all(found.bounds)
    integers = net.decode(net.run_integers(net.encode(x)))
    assert np.array_equal(integers, net.run_emulated(x))
    assert np.array_equal(integers, net.run_fake_quantised(x))
    assert {abs(s.least) for s in found.steps if s.dtype == "int8"} <= set(range(129))


class Traced(np.ndarray):
    """An array that refuses to meet a float, or to become one."""

    seen: ClassVar[set[str]] = set()

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        plain = [np.asarray(x) if isinstance(x, np.ndarray) else x for x in inputs]
        result = np.asarray(getattr(ufunc, method)(*plain, **kwargs))
        for dtype in (np.asarray(x).dtype for x in (*plain, result)):
            if dtype.kind not in "iub":
                raise AssertionError(f"{ufunc.__name__} met {dtype}")
        Traced.seen.add(f"{ufunc.__name__} {result.dtype}")
        return result.view(Traced)

    def astype(self, dtype, *args, **kwargs):
        if np.dtype(dtype).kind not in "iub":
            raise AssertionError(f"became {dtype}")
        return np.asarray(self).astype(dtype, *args, **kwargs).view(Traced)


def test_no_step_meets_a_float():
    net = IntegerNetwork(layers(), IMAGES, weight_bits=4, activation_bits=4)
    Traced.seen.clear()
    kinds: dict[str, str] = {}

    def watch(name: str, integers: np.ndarray) -> None:
        assert isinstance(integers, Traced), f"{name} left the trace"
        kinds[name] = integers.dtype.name

    codes = net.encode(IMAGES)
    traced = net.run_integers(codes.view(Traced), watch=watch)
    assert np.array_equal(np.asarray(traced), net.run_integers(codes))
    assert {"matmul int32", "multiply int64", "right_shift int64", "add int32", "floor_divide int32"} <= Traced.seen
    assert kinds["0 conv2d"] == "int32"
    found = {name: kinds[name] for name in ("2 max_pool", "3.main.0 requantise", "3 add", "7 average_pool", "output")}
    assert found == {"2 max_pool": "int32", "3.main.0 requantise": "uint8", "3 add": "int16", "7 average_pool": "int16",
                     "output": "int16"}  # fmt: skip


def test_the_trace_finds_a_float(monkeypatch):
    monkeypatch.setattr(_integer_arithmetic, "rectified", lambda x: np.maximum(x, 0.0))
    net = IntegerNetwork(layers(), IMAGES)
    with pytest.raises(AssertionError, match="maximum met float64"):
        net.run_integers(net.encode(IMAGES).view(Traced))


def test_a_planted_error_is_found(monkeypatch):
    net = IntegerNetwork(layers(), IMAGES)
    monkeypatch.setitem(_integer_arithmetic._UP, "ties_to_even", _integer_arithmetic._UP["toward_negative"])
    found = net.check(IMAGES)
    assert not found
    assert next(s.name for s in found.steps if not s) == "3.main.0 requantise"


def test_accumulators_that_wrap():
    """Too narrow ones overflow in the integers as in the emulation; fake quantisation has none, and tells."""
    narrow = IntegerNetwork(layers(), IMAGES, accumulator_bits=14)
    found = narrow.check(IMAGES)
    assert not any(s.emulated_differ for s in found.steps)
    assert any(s.fake_differ for s in found.steps)
    assert not all(found.bounds)
    want: list[np.ndarray] = []
    run_in_python(narrow.steps[:1], narrow.encode(IMAGES), want)
    got: list[np.ndarray] = []
    narrow.run_integers(narrow.encode(IMAGES), watch=lambda name, integers: got.append(integers))
    assert got[0].tolist() == want[0].tolist()


def test_bounds_are_met():
    """The extreme sums come up with the activations that make them."""
    net = IntegerNetwork([Linear([[1.0, -0.5, 0.25]], [0.1])], [[1.0, 1.0, 1.0]])
    bound = net.bounds()[0]
    w, bias = net.steps[0].weight[:, 0].astype(int), int(net.steps[0].bias[0])
    sums = [int(np.where(up, 127, -128) @ w) + bias for up in (w > 0, w < 0)]
    assert (bound.largest, bound.least) == tuple(sums)
    got: list[int] = []
    codes = np.array([np.where(w > 0, 127, -128), np.where(w < 0, 127, -128)], np.int8)
    net.run_integers(codes, watch=lambda name, integers: got.append(integers))
    assert got[0].ravel().tolist() == sums
    assert bound.proof.largest == bound.largest - bias
    exact = IntegerNetwork([Linear([[1.0, -0.5, 0.25]], [0.1])], [[1.0] * 3], accumulator_bits=bound.needed)
    below = IntegerNetwork([Linear([[1.0, -0.5, 0.25]], [0.1])], [[1.0] * 3], accumulator_bits=bound.needed - 1)
    assert all(exact.bounds())
    assert not any(below.bounds())


@pytest.mark.parametrize("options", [{"group": 32}, {"order": "pairwise"}, {"chunk": 16}])
def test_any_order_of_a_wrapping_accumulator_gives_the_same(options):
    net = IntegerNetwork(layers(), IMAGES, accumulator_bits=14)
    other = lowp.Accumulator(format="int14", overflow="wrap", **options)
    assert np.array_equal(net.run_emulated(IMAGES, accumulator=other), net.run_emulated(IMAGES))


def test_an_accumulator_that_saturates_differs():
    net = IntegerNetwork(layers(), IMAGES, accumulator_bits=14)
    other = lowp.Accumulator(format="int14", overflow="saturate")
    assert not np.array_equal(net.run_emulated(IMAGES, accumulator=other), net.run_emulated(IMAGES))


def test_residual_branches_of_different_scales():
    """`round(z1 b1 / 2^c1) + round(z2 b2 / 2^c2)`, as fixedpoint_fn's case 1, and not one rounding of the sum."""
    net = IntegerNetwork([Residual([Linear(draw(6, 6))], [Linear(20 * draw(7, 6)[:6])])], draw(50, 6), output_bits=16)
    add = net.steps[0]
    parts: dict[str, np.ndarray] = {}
    net.run_integers(net.encode(draw(50, 6)), watch=lambda name, integers: parts.update({name: integers}))
    main, shortcut = parts["0.main.0 linear"].astype(object), parts["0.shortcut.0 linear"].astype(object)
    left, right = add.main_scale.exact(), add.shortcut_scale.exact()
    want = [[rne(main[i, c] * left[c]) + rne(shortcut[i, c] * right[c]) for c in range(6)] for i in range(50)]
    once = [[rne(main[i, c] * left[c] + shortcut[i, c] * right[c]) for c in range(6)] for i in range(50)]
    assert parts["0 add"].tolist() == want
    assert want != once
    assert not np.allclose(np.array(left, float), np.array(right, float), rtol=0.1)


def test_averages_of_negative_numbers_are_truncated():
    net = IntegerNetwork([Conv2d(draw(3, 2, 3, 3)), AveragePool2d(2, 1), Flatten(), Linear(draw(4, 36))], IMAGES)
    want: list[np.ndarray] = []
    got: dict[str, np.ndarray] = {}
    net.run_integers(net.encode(IMAGES), watch=lambda name, integers: got.update({name: integers}))
    run_in_python(net.steps, net.encode(IMAGES), want)
    assert (got["1 average_pool"] < 0).any()
    assert got["1 average_pool"].tolist() == want[2].tolist()
    assert net.check(IMAGES)
    assert not np.array_equal(
        net.run_emulated(IMAGES),
        IntegerNetwork(net.layers, IMAGES, average_rounding="floor").run_emulated(IMAGES),
    )


def test_sums_of_larger_images_than_those_of_the_calibration():
    net = IntegerNetwork(
        [Conv2d(np.ones((1, 1, 1, 1))), AveragePool2d(), Flatten(), Linear([[1.0]])], np.ones((1, 1, 4, 4))
    )
    large = np.ones((1, 1, 257, 256))  # 2^16 + 2^8 numbers of up to 2^15
    with pytest.raises(lowp.RangeError, match="beyond int32"):
        net.run_integers(net.encode(large))
    assert net.check(large[:, :, 2:])


def test_weights_scales_and_folding():
    norm = BatchNorm([0.5, -1.0], [4.0, 0.25], [2.0, -3.0], [0.1, 0.2], eps=0.0)
    net = IntegerNetwork([Linear([[1.0, 2.0], [3.0, -4.0]], [1.0, 2.0]), norm], [[1.0, -2.0]])
    x = np.array([[0.3, -0.7]])
    plain = (x @ np.array([[1.0, 3.0], [2.0, -4.0]]) + [1.0, 2.0] - [0.5, -1.0]) / [2.0, 0.5] * [2.0, -3.0] + [0.1, 0.2]
    assert np.allclose(net.run_float(x), plain, rtol=1e-14)
    step = net.steps[0]
    assert step.weight.T.tolist() == [[64, 127], [-95, 127]]  # 127 * 1/2 = 63.5 and 127 * 3/4 = 95.25
    assert np.array_equal(step.weight_scale, np.array([2.0, 24.0], np.float32) / np.float32(127))
    assert net.input.scale == np.float32(2.0 / 127)
    assert step.output.scale.dtype == np.float32


def test_accuracy_grows_with_the_bits():
    x = draw(200, 2, 7, 6)
    errors = []
    for bits in (2, 4, 6, 8):
        net = IntegerNetwork(layers(), x, weight_bits=bits, activation_bits=bits)
        real = net.run_float(x)
        errors.append(float(np.abs(net.run_emulated(x) - real).mean() / np.abs(real).mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05


def test_what_a_network_refuses():
    good = [Linear(draw(3, 4))]
    x = draw(5, 4)
    for wrong, text in (
        ([], "no Conv2d or Linear"),
        ([BatchNorm([0.0], [1.0])], "must follow"),
        ([Conv2d(draw(2, 1, 3, 3))], "Conv2d of 1 channels"),
        ([Linear(draw(3, 5))], "Linear of 5 inputs"),
        ([Residual(good)], "do not add"),
        ([MaxPool2d(2), *good], r"windows need \(N, C, H, W\), not \(5, 4\)"),
    ):
        with pytest.raises(lowp.ArgumentError, match=text):
            IntegerNetwork(wrong, x)
    with pytest.raises(lowp.ArgumentTypeError, match="layers holds 3"):
        IntegerNetwork([3], x)
    for options, text in (
        ({"weight_bits": 9}, "weight_bits=9"),
        ({"activation_bits": [8, 8]}, "must hold 1 widths"),
        ({"accumulator_bits": 33}, "accumulator_bits=33"),
        ({"rounding": "stochastic_a"}, "rounding"),
    ):
        with pytest.raises(lowp.ArgumentError, match=text):
            IntegerNetwork(good, x, **options)
    with pytest.raises(lowp.RangeError, match="a bias is beyond int16"):
        IntegerNetwork([Linear(draw(3, 4), [1e3] * 3)], x, accumulator_bits=16)
    huge = np.broadcast_to(1.0, (1, 1, 256, 257))
    with pytest.raises(lowp.RangeError, match="sums of 65792 integers"):
        IntegerNetwork([Conv2d([[[[1.0]]]]), AveragePool2d()], huge)
    net = IntegerNetwork(good, x)
    with pytest.raises(lowp.ArgumentTypeError, match="encode real numbers first"):
        net.run_integers(x)
    with pytest.raises(lowp.RangeError, match=r"-128\.\.127"):
        net.run_integers(np.array([[128, 0, 0, 0]]))
    with pytest.raises(lowp.ArgumentError, match="finite"):
        net.run_emulated([[np.nan] * 4])


def test_every_public_name_is_there():
    assert all(hasattr(dyadic, name) for name in dyadic.__all__)
