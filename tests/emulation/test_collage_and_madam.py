"""Collage's arithmetic and Madam's updates, against NumPy references that share no code with them."""

import io
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import lowp
from lowp.emulation import collage, madam
from lowp.emulation.optimizer_arithmetic import nearest, root_mean_square, square_root
from lowp.emulation.optimizer_states import site_seed, step_seed
from lowp.emulation.torch_optim import CollageAdamW, Madam
from lowp.rounding._namespaces import NumpyNamespace, namespace_of

F = np.float32
XP = NumpyNamespace()


def r(x: Any) -> Any:
    return np.asarray(x, F).astype(ml_dtypes.bfloat16).astype(F)


def bf16_samples(n: int, seed: int) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    return r(rng.standard_normal(n) * 2.0 ** rng.integers(-12, 12, n))


def test_rounding_to_bfloat16_is_that_of_ml_dtypes() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 1 << 32, 200_000, dtype=np.uint32).view(F)
    x = np.concatenate([x, F([0.0, -0.0, np.inf, -np.inf, 3.4e38, 1e-40]), (1 + np.arange(512) / F(1 << 9)).astype(F)])
    finite = ~np.isnan(x)
    with np.errstate(all="ignore"):
        got, expected = nearest(XP, x), r(x)
    np.testing.assert_array_equal(got[finite].view(np.uint32), expected[finite].view(np.uint32))
    assert np.isnan(got[~finite]).all()
    eager = nearest(namespace_of(torch.from_numpy(x)), torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(eager[finite].view(np.uint32), expected[finite].view(np.uint32))


def test_the_papers_numbers() -> None:
    assert [float(lowp.quantize(b, "bfloat16")) for b in (0.999, 0.99, 0.95)] == [1.0, 0.98828125, 0.94921875]
    high, low = collage.split(0.999)
    assert (high, round(low, 10)) == (1.0, -0.0009994507)
    assert round(high + low, 10) == 0.9990005493


def test_the_sum_of_two_is_exact_and_grow_keeps_the_invariant() -> None:
    a, b = bf16_samples(20_000, 1), bf16_samples(20_000, 2)
    swap = np.abs(a) < np.abs(b)
    a, b = np.where(swap, b, a), np.where(swap, a, b)
    total, error = collage.fast_two_sum(XP, a, b)
    np.testing.assert_array_equal(total.astype(float) + error, a.astype(float) + b)
    pair = collage.fast_two_sum(XP, a, r(a * F(2**-9)))
    high, low = collage.grow(XP, pair, r(b * F(2**-12)))
    ulp = 2.0 ** (np.frexp(high.astype(float))[1] - 8)
    assert (np.abs(low) <= ulp / 2).all()
    wanted = pair[0].astype(float) + pair[1] + r(b * F(2**-12))
    assert (np.abs(high.astype(float) + low - wanted) <= np.abs(wanted) * 2.0**-15).all()
    plain = r(r(pair[0] + pair[1]) + r(b * F(2**-12)))
    assert np.abs(plain - wanted).mean() > 50 * np.abs(high.astype(float) + low - wanted).mean()


def test_products_of_pairs_keep_twice_the_digits() -> None:
    high, low = collage.fast_two_sum(XP, bf16_samples(5000, 3), r(bf16_samples(5000, 3) * F(2**-9)))
    b, c = (F(part) for part in collage.split(0.999))
    got_high, got_low = collage.multiply(XP, (high, low), (b, c))
    wanted = (high.astype(float) + low) * (float(b) + float(c))
    assert (np.abs(got_high.astype(float) + got_low - wanted) <= np.abs(wanted) * 2.0**-14).all()


def reference_step(w: Any, g: Any, state: dict[str, Any], variant: str, lr: float, wd: float, beta2: float) -> Any:
    """AdamW of Collage in NumPy float32, each result cast through ml_dtypes' bfloat16."""
    beta1, eps = F(0.9), F(1e-8)
    m = r(r(beta1 * state["m"]) + r(F(1 - 0.9) * g))
    square = r(F(1 - beta2) * (g * g))
    if variant == "plus":
        b = r(beta2)
        c = r(F(beta2 - float(b)))
        p = r(state["v"] * b)
        e = r(state["v"] * b - p)
        rest = r(r(r(state["vl"] * b) + state["v"] * c) + e)
        v = r(p + rest)
        vl = r(rest - r(v - p))
        s = r(v + square)
        t = r(vl + r(square - r(s - v)))
        v = r(s + t)
        vl = r(t - r(v - s))
        state["vl"] = vl
    else:
        v = r(r(F(beta2) * state["v"]) + square)
    step_size, root = F(lr) / (F(1) - state["p1"]), np.sqrt(F(1) - state["p2"])
    update = r(r(-step_size * m) / r(r(r(np.sqrt(v)) / root) + eps))
    update = r(update - r(F(lr) * F(wd) * w))
    state.update(m=m, v=v, p1=F(state["p1"] * beta1), p2=F(state["p2"] * F(beta2)))
    if variant == "none":
        return r(w + update)
    s = r(w + update)
    t = r(state["wl"] + r(update - r(s - w)))
    w = r(s + t)
    state["wl"] = r(t - r(w - s))
    return w


@pytest.mark.parametrize("variant", collage.VARIANTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_collage_adamw_is_its_definition(variant: str, dtype: torch.dtype) -> None:
    w = bf16_samples(300, 5)
    p = torch.nn.Parameter(torch.from_numpy(w.copy()).to(dtype))
    optimizer = CollageAdamW([p], lr=2e-3, weight_decay=0.1, variant=variant)
    state: dict[str, Any] = {"m": F(0) * w, "v": F(0) * w, "vl": F(0) * w, "wl": F(0) * w, "p1": F(0.9), "p2": F(0.999)}
    for step in range(6):
        g = bf16_samples(300, 100 + step) * F(2**-8)
        p.grad = torch.from_numpy(g).to(dtype)
        optimizer.step()
        w = reference_step(w, g, state, variant, 2e-3, 0.1, 0.999)
        np.testing.assert_array_equal(p.detach().float().numpy(), w)
    found = {"exp_avg": "m", "exp_avg_sq": "v"} | ({"weight_low": "wl"} if variant != "none" else {})
    found |= {"exp_avg_sq_low": "vl"} if variant == "plus" else {}
    for name, key in found.items():
        assert optimizer.state[p][name].dtype == torch.bfloat16
        np.testing.assert_array_equal(optimizer.state[p][name].float().numpy(), state[key])


def test_only_collage_plus_lets_the_second_moment_decay() -> None:
    for variant, low, high in (("none", 1.0, 1.0), ("light", 1.0, 1.0), ("plus", 0.365, 0.372)):
        p = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
        optimizer = CollageAdamW([p], lr=0.0, variant=variant)
        p.grad = torch.zeros_like(p)
        optimizer.step()
        state = optimizer.state[p]
        state["exp_avg_sq"].fill_(1.0)
        for _ in range(1000):
            optimizer.step()
        v = sum(float(state[name]) for name in ("exp_avg_sq", "exp_avg_sq_low") if name in state)
        assert low <= v <= high, variant  # .999^1000 = .3677


def test_collage_trains_where_bfloat16_stalls() -> None:
    losses = {}
    for variant in ("none", "light", "plus"):
        p = torch.nn.Parameter(torch.full((64,), 1.0, dtype=torch.bfloat16))
        optimizer = CollageAdamW([p], lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0, variant=variant)
        for _ in range(400):
            p.grad = (optimizer.weights(p) - 1.2).to(torch.bfloat16)
            optimizer.step()
        losses[variant] = float(((optimizer.weights(p) - 1.2) ** 2).mean())
    assert losses["none"] == pytest.approx(0.04, rel=1e-2)  # an update of 1e-3 is less than half an ulp of 1
    assert losses["light"] < 1e-4
    assert losses["plus"] < 1e-4


def test_a_float32_parameter_starts_with_its_error_as_second_part() -> None:
    x = torch.randn(100, generator=torch.Generator().manual_seed(0))
    p = torch.nn.Parameter(x.clone())
    optimizer = CollageAdamW([p], lr=0.0, weight_decay=0.0)
    p.grad = torch.zeros(100)
    optimizer.step()
    assert (optimizer.weights(p) - x.double()).abs().max() < 2.0**-16 * x.abs().max()
    assert torch.equal(p.detach(), lowp.quantize(x, "bfloat16"))


def make(kind: str, p: torch.nn.Parameter) -> torch.optim.Optimizer:
    if kind == "collage":
        return CollageAdamW([p], lr=1e-3)
    if kind == "madam":
        return Madam([p], lr=1e-2)
    return Madam([p], lr=1 / 128, base=2, fmt="lns16_f11_unsigned_nozero", rounding="stochastic_a", seed=4)


@pytest.mark.parametrize("kind", ["collage", "madam", "logarithmic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resumed_runs_equal_uninterrupted_ones(kind: str, dtype: torch.dtype) -> None:
    if kind == "logarithmic" and dtype == torch.bfloat16:
        with pytest.raises(lowp.ArgumentTypeError, match="bfloat16"):
            make(kind, torch.nn.Parameter(torch.ones(2, dtype=dtype)))
        return
    p = torch.nn.Parameter(torch.from_numpy(bf16_samples(50, 6)).to(dtype))
    optimizer = make(kind, p)
    saved: Any = None
    for step in range(6):
        if step == 3:
            file = io.BytesIO()
            torch.save({"p": p.detach(), "optimizer": optimizer.state_dict()}, file)
            file.seek(0)
            saved = torch.load(file, weights_only=True)
        p.grad = torch.from_numpy(bf16_samples(50, 200 + step)).to(dtype)
        optimizer.step()
    q = torch.nn.Parameter(torch.ones(50, dtype=dtype))
    again = make(kind, q)
    again.load_state_dict(saved["optimizer"])
    with torch.no_grad():
        q.copy_(saved["p"])
    for step in range(3, 6):
        q.grad = torch.from_numpy(bf16_samples(50, 200 + step)).to(dtype)
        again.step()
    assert torch.equal(p, q)
    for name, value in optimizer.state[p].items():
        assert value.dtype == again.state[q][name].dtype
        assert torch.equal(value, again.state[q][name])


def normalized(g: Any, v: Any, power: Any, beta: float = 0.999, bound: float = 10.0) -> tuple[Any, Any]:
    v = F(beta) * v + F(1 - beta) * (g * g)
    with np.errstate(all="ignore"):
        ratio = g / np.sqrt(v / (F(1) - power))
    return np.clip(np.where(np.isnan(ratio), F(0), ratio), F(-bound), F(bound)), v


@pytest.mark.parametrize("base", ["e", 2])
def test_madam_multiplies_weights(base: Any) -> None:
    w = bf16_samples(200, 7)
    w[:3] = 0
    p = torch.nn.Parameter(torch.from_numpy(w.copy()))
    optimizer = Madam([p], lr=0.05, base=base)
    limit = 3 * np.sqrt(np.mean(w.astype(float) ** 2))
    v, power = np.zeros_like(w), F(0.999)
    for step in range(5):
        g = bf16_samples(200, 300 + step)
        g[5] = 0
        p.grad = torch.from_numpy(g)
        optimizer.step()
        ratio, v = normalized(g, v, power)
        power = F(power * F(0.999))
        w = np.clip(w * np.exp(-0.05 * ratio * np.sign(w) * (1 if base == "e" else np.log(2))), -limit, limit)
        np.testing.assert_array_equal(optimizer.state[p]["square"].numpy(), v)
        np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-5)
    assert (p.detach()[:3] == 0).all()


@pytest.mark.parametrize(
    "fmt", ["lns16_f11_unsigned_nozero", "lns16_f8", "lns12_gamma24", "lns8_f3_nozero", "lns32_f16"]
)
@pytest.mark.parametrize("rounding", ["ties_to_even", "stochastic_a"])
def test_logarithmic_weights_move_by_integers(fmt: str, rounding: str) -> None:
    lns = madam.logarithmic(fmt)
    w = bf16_samples(400, 8)
    w[:4] = 0
    p = torch.nn.Parameter(torch.from_numpy(w.copy()))
    optimizer = Madam([p], lr=1 / 64, base=2, fmt=fmt, rounding=rounding, seed=11)
    unit = float(optimizer.state[p]["unit"])
    assert np.frexp(unit)[0] == 0.5
    assert lns.signed_exponent is (unit == 1.0)
    np.testing.assert_array_equal(p.detach().numpy(), (lowp.quantize(w / unit, fmt) * F(unit)).astype(F))
    rms = np.sqrt(np.mean(w.astype(float) ** 2))
    np.testing.assert_allclose(float(optimizer.state[p]["limit"]), 3 * rms, rtol=1e-5)
    limit = lowp.quantize(float(optimizer.state[p]["limit"]) / unit, fmt, rounding="toward_zero")
    codes, v, power = optimizer.codes(p).numpy(), np.zeros_like(w), F(0.999)
    for step in range(4):
        g = bf16_samples(400, 400 + step)
        p.grad = torch.from_numpy(g)
        optimizer.step()
        ratio, v = normalized(g, v, power)
        power = F(power * F(0.999))
        seed = step_seed(site_seed(11, "0", "parameter"), step + 1)
        steps = lowp.quantize(ratio * F(lns.gamma / 64), lowp.Integer(24), rounding=rounding, seed=seed)
        expected = [
            moved_by_hand(int(c) & ((1 << lns.bits) - 1), int(n), lns, limit) for c, n in zip(codes, steps, strict=True)
        ]
        codes = optimizer.codes(p).numpy()
        assert [int(c) & ((1 << lns.bits) - 1) for c in codes] == expected


def moved_by_hand(code: int, steps: int, lns: Any, limit: float) -> int:
    ranked = lns.code_rank(code)
    if ranked is None:
        return code
    rank, negative = ranked
    top = lns.code_rank(int(lowp.encode(limit, lns).codes))[0]
    return int(lns.rank_code(min(max(rank + (steps if negative else -steps), 0), top), negative))


def test_logarithmic_regression_converges() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 16, generator=generator)
    truth = torch.randn(16, 4, generator=generator)
    w = torch.nn.Parameter(truth.sign() * torch.rand(16, 4, generator=generator).add(0.5))  # Madam keeps signs
    optimizer = Madam([w], lr=1 / 32, base=2, scale=10.0, fmt="lns16_f11_unsigned_nozero")
    losses = []
    for _ in range(160):
        optimizer.zero_grad()
        loss = ((x @ w - x @ truth) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 100


def test_square_roots_are_rounded_correctly_everywhere() -> None:
    x = np.random.default_rng(1).random(10_000, F) * F(100)
    got = square_root(namespace_of(torch.from_numpy(x)), torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(got, np.sqrt(x))


def test_the_root_mean_square_has_one_order() -> None:
    for n in (0, 1, 2, 3, 7, 64, 1000, 4097):
        x = bf16_samples(n, n)
        got = root_mean_square(XP, x)
        assert got.tobytes() == root_mean_square(XP, x.reshape(1, -1)).tobytes()
        assert got.tobytes() == F(float(root_mean_square_of_torch(x))).tobytes()
        expected = np.sqrt(np.mean(x.astype(float) ** 2)) if n else 0.0
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def root_mean_square_of_torch(x: Any) -> Any:
    tensor = torch.from_numpy(x)
    return root_mean_square(namespace_of(tensor), tensor)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"lr": -1.0}, lowp.ArgumentError, "lr=-1.0"),
        ({"beta": 1.0}, lowp.ArgumentError, "beta=1.0"),
        ({"base": 10}, lowp.ArgumentError, "base=10"),
        ({"fmt": "posit16"}, lowp.FormatError, "logarithmic"),
        ({"fmt": "lns16_f8", "rounding": "up"}, lowp.ArgumentError, "rounding='up'"),
        ({"fmt": "lns32_f20", "lr": 100.0}, lowp.ArgumentError, "exponent steps"),
        ({"seed": 1.5}, lowp.ArgumentError, "seed=1.5"),
    ],
)
def test_madams_arguments_are_checked(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Madam([torch.nn.Parameter(torch.ones(2))], **arguments)


def test_collages_arguments_are_checked() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(lowp.ArgumentError, match=r"variant='pluss'.*'plus'"):
        CollageAdamW([p], variant="pluss")
    with pytest.raises(lowp.ArgumentError, match="betas"):
        CollageAdamW([p], betas=(0.9, 1.0))
    with pytest.raises(lowp.ArgumentTypeError, match="float64"):
        CollageAdamW([torch.nn.Parameter(torch.ones(2, dtype=torch.float64))])
    table = torch.nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    for optimizer in (CollageAdamW(table.parameters()), Madam(table.parameters())):
        with pytest.raises(lowp.ArgumentTypeError, match="sparse"):
            optimizer.step()


@pytest.mark.parametrize("options", [{}, {"base": 2, "lr": 1 / 128, "fmt": "lns16_f11_unsigned_nozero"}])
def test_madam_takes_parameters_that_are_one_number(options: dict[str, Any]) -> None:
    """With the bits that the same number has in a vector."""
    values = []
    for shape in ((), (1,)):
        p = torch.nn.Parameter(torch.full(shape, 1.5))
        optimizer = Madam([p], **options)
        for g in (0.3, -0.7):
            p.grad = torch.full(shape, g)
            optimizer.step()
        assert p.shape == shape
        values.append(p.item())
    assert values[0] == values[1] != 1.5
