"""Optax optimizers in low precision, against the same steps by hand and against torch's."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
torch = pytest.importorskip("torch")
import jax.numpy as jnp  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402

import lowp  # noqa: E402
from lowp.emulation import Cast, Recipe, Rule  # noqa: E402
from lowp.emulation.collage import VARIANTS  # noqa: E402
from lowp.emulation.jax_optim import (  # noqa: E402
    apply_updates,
    collage_adamw,
    low_precision,
    madam,
    state_nbytes,
)
from lowp.emulation.optimizer_states import site_seed, step_seed  # noqa: E402
from lowp.emulation.torch_optim import CollageAdamW, Madam  # noqa: E402
from tests.covering import slow  # noqa: E402


def parameters() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "fc": {"w": jnp.asarray(rng.standard_normal((16, 40)), jnp.float32), "b": jnp.ones(40)},
        "head": jnp.asarray(rng.standard_normal((40, 3)), jnp.float32),
    }


def gradients(params: Any, step: int) -> Any:
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(1000 + step)
    return tree.unflatten([jnp.asarray(0.1 * rng.standard_normal(p.shape), p.dtype) for p in leaves])


def same(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


OPTIMIZERS = {
    "adam": optax.scale_by_adam,
    "sgd": lambda: optax.trace(0.9, nesterov=True),
    "rms": optax.scale_by_rms,
    "lion": optax.scale_by_lion,
}


FORMATS = ["float8_e5m2", "bfloat16", "mxfp8", "int8", "block[mulaw4,128,float32]"]
#: Every optimizer and every format once; other pairs in the slow run.
FIRST = [("adam", "mxfp8"), ("sgd", "float8_e5m2"), ("sgd", "bfloat16"), ("rms", FORMATS[4]), ("lion", "int8")]


@pytest.mark.parametrize(
    ("name", "fmt"), [*FIRST, *(slow(n, f) for n in OPTIMIZERS for f in FORMATS if (n, f) not in FIRST)]
)
def test_states_are_those_of_a_plain_optimizer_encoded_and_decoded_by_hand(name: str, fmt: str) -> None:
    params, plain = parameters(), OPTIMIZERS[name]()
    optimizer = low_precision(plain, fmt)
    state, by_hand = optimizer.init(params), plain.init(params)

    def kept(x: Any) -> Any:
        return jnp.asarray(lowp.decode(lowp.encode(np.asarray(x), fmt))) if x.ndim and x.dtype == jnp.float32 else x

    for step in range(3):
        g = gradients(params, step)
        updates, state = optimizer.update(g, state, params)
        expected, by_hand = plain.update(g, by_hand, params)
        by_hand = jax.tree.map(kept, by_hand)
        assert same(updates, expected)


@pytest.mark.parametrize("states", ["dynamic8", "muonq4", slow("mulaw4"), slow("mxfp4"), "posit16"])
def test_jit_codes_and_rounded_arrays_hold_the_same_values(states: str) -> None:
    runs = []
    for encoded in (True, False):
        params = parameters()["fc"]["w"]
        optimizer = low_precision(optax.adam(1e-3), states, encoded=encoded)
        state = optimizer.init(params)
        update = jax.jit(optimizer.update)
        for step in range(3):
            updates, state = update(gradients(params, step), state, params)
            params = optax.apply_updates(params, updates)
        runs.append(params)
    assert same(*runs)


def test_stochastic_states_follow_seed_names_and_step() -> None:
    params = parameters()
    cast = Cast("bfloat16", rounding="stochastic_a")
    optimizer = low_precision(optax.trace(0.9), cast, seed=1 << 40)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    momentum = np.zeros((16, 40), np.float32)
    for step in range(3):
        g = gradients(params, step)
        updates, state = update(g, state, params)
        wide = jnp.asarray(g["fc"]["w"]) + 0.9 * jnp.asarray(momentum)  # optax computes g + decay * t
        assert np.allclose(np.asarray(updates["fc"]["w"]), np.asarray(wide))
        seed = step_seed(site_seed(1 << 40, "fc.w", "trace"), step + 1)
        momentum = lowp.quantize(np.asarray(updates["fc"]["w"]), "bfloat16", rounding="stochastic_a", seed=seed)
        assert np.array_equal(np.asarray(state.inner.trace["fc"]["w"].decode()), momentum)


def test_masters_and_updates_follow_the_plain_run() -> None:
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), parameters())
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    plain = optax.adam(1e-2)
    optimizer = low_precision(plain, parameters={"format": "float8_e4m3fn"}, master_weights=True)
    state, by_hand = optimizer.init(params), plain.init(wide)
    params = optimizer.start(params)
    again, state_again = params, state
    for step in range(4):
        g = gradients(params, step)
        params, state = optimizer.step(g, state, params)
        updates, state_again = optimizer.update(g, state_again, again)
        again = optax.apply_updates(again, updates)
        updates, by_hand = plain.update(jax.tree.map(lambda x: x.astype(jnp.float32), g), by_hand, wide)
        wide = optax.apply_updates(wide, updates)
        expected = jax.tree.map(lambda p: jnp.asarray(lowp.quantize(np.asarray(p), "float8_e4m3fn")), wide)
        assert same(params, jax.tree.map(lambda p: p.astype(jnp.bfloat16), expected))
        assert same(params, again)
    assert same(jax.tree.leaves(wide), [state.masters[n] for n in ("fc.b", "fc.w", "head")])


def test_updates_are_stochastic_by_step_and_unbiased() -> None:
    ulp, n = 2.0**-7, 4096
    params = {"w": jnp.full(n, 1.25, jnp.bfloat16)}
    optimizer = low_precision(optax.sgd(1.0), parameters="bfloat16", update_rounding="stochastic_a")
    state, step = optimizer.init(params), jax.jit(optimizer.step)
    by_hand = params
    for i in range(64):
        g = {"w": jnp.full(n, -ulp / 64, jnp.bfloat16)}
        params, state = step(g, state, params)
        by_hand = apply_updates(by_hand, jax.tree.map(lambda x: -x, g), "bfloat16", step=i + 1)
    assert same(params, by_hand)
    moved = (np.asarray(params["w"], np.float64).mean() - 1.25) / ulp
    assert abs(moved - 1) < 5 * (63 / 64 / n) ** 0.5


@pytest.mark.parametrize(
    ("variant", "dtype"),
    [*((v, "bfloat16") for v in VARIANTS), ("plus", "float32"), slow("light", "float32"), slow("none", "float32")],
)
def test_collage_has_the_bits_of_torchs(variant: str, dtype: str) -> None:
    rng = np.random.default_rng(3)
    w = rng.standard_normal((33, 7)).astype(np.float32)
    p = torch.nn.Parameter(torch.from_numpy(w.copy()).to(getattr(torch, dtype)))
    theirs = CollageAdamW([p], lr=2e-3, weight_decay=0.1, variant=variant)
    optimizer = collage_adamw(2e-3, weight_decay=0.1, variant=variant)
    params = {"w": jnp.asarray(w).astype(dtype)}
    state, step = optimizer.init(params), jax.jit(optimizer.step)
    update = jax.jit(optimizer.update)
    again, state_again = optimizer.start(params), state
    for _ in range(8):
        g = (rng.standard_normal(w.shape) * 0.01).astype(np.float32)
        p.grad = torch.from_numpy(g).to(p.dtype)
        theirs.step()
        mine = {"w": jnp.asarray(g).astype(dtype)}
        params, state = step(mine, state, params)
        updates, state_again = update(mine, state_again, again)
        again = optax.apply_updates(again, updates)
        assert np.array_equal(np.asarray(params["w"], np.float32), p.detach().float().numpy())
    assert same(params, again)
    assert same(state, state_again)
    for name, value in zip(state.moments["w"]._fields, state.moments["w"], strict=True):
        if value is not None:
            assert value.dtype == jnp.bfloat16
            assert np.array_equal(np.asarray(value, np.float32), theirs.state[p][name].float().numpy()), name
    assert float(state.power2) == float(theirs.state[p]["power2"])


@pytest.mark.parametrize("fmt", ["lns16_f11_unsigned_nozero", slow("lns16_f8"), "lns8_f3_nozero"])
def test_logarithmic_madam_has_the_bits_of_torchs(fmt: str) -> None:
    rng = np.random.default_rng(4)
    w = rng.standard_normal((65, 7)).astype(np.float32)
    w[0] = 0
    p = torch.nn.Parameter(torch.from_numpy(w.copy()))
    theirs = Madam([p], lr=1 / 100, base=2, fmt=fmt)
    optimizer = madam(1 / 100, base=2, fmt=fmt)
    params = {"w": jnp.asarray(w)}
    state, step = optimizer.init(params), jax.jit(optimizer.step)
    params = optimizer.start(params)
    assert np.array_equal(np.asarray(params["w"]), p.detach().numpy())
    for _ in range(8):
        g = (rng.standard_normal(w.shape) * 2.0 ** rng.integers(-9, 3, w.shape)).astype(np.float32)
        p.grad = torch.from_numpy(g)
        theirs.step()
        params, state = step({"w": jnp.asarray(g)}, state, params)
        assert np.array_equal(np.asarray(state.square["w"]), theirs.state[p]["square"].numpy())
        assert np.array_equal(np.asarray(params["w"]), p.detach().numpy())
    assert float(state.limit["w"]) == float(theirs.state[p]["limit"])


def test_floating_point_madam_is_that_of_torch() -> None:
    rng = np.random.default_rng(5)
    w = rng.standard_normal(200).astype(np.float32)
    p = torch.nn.Parameter(torch.from_numpy(w.copy()))
    theirs, optimizer = Madam([p], lr=0.05), madam(0.05)
    params = jnp.asarray(w)
    state = optimizer.init(params)
    for _ in range(5):
        g = rng.standard_normal(200).astype(np.float32)
        p.grad = torch.from_numpy(g)
        theirs.step()
        updates, state = jax.jit(optimizer.update)(jnp.asarray(g), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(np.asarray(params), p.detach().numpy(), rtol=1e-5)


def test_stochastic_madam_repeats_and_differs_by_seed() -> None:
    results = []
    for seed in (1, 1, 2):
        params = parameters()["head"]
        optimizer = madam(1 / 300, base=2, fmt="lns16_f8", rounding="stochastic_a", seed=seed)
        state, params = optimizer.init(params), optimizer.start(params)
        step = jax.jit(optimizer.step)
        for i in range(3):
            params, state = step(gradients(params, i), state, params)
        results.append(params)
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_scan_equals_a_loop() -> None:
    params = parameters()
    cast = Cast("float8_e4m3fn", rounding="stochastic_a")
    optimizer = low_precision(optax.adam(1e-3), cast, parameters=cast, master_weights=True)
    state = optimizer.init(params)
    g = gradients(params, 0)

    def body(carry: Any, _: Any) -> Any:
        new, state = optimizer.step(g, carry[1], carry[0])
        return (new, state), None

    scanned, _ = jax.jit(lambda c: jax.lax.scan(body, c, None, length=3))((params, state))
    looped, step = (params, state), jax.jit(lambda c: body(c, None)[0])
    for _ in range(3):
        looped = step(looped)
    assert same(scanned, looped)


def test_partitioned_states_are_those_of_one_device(repo: Path) -> None:
    if len(jax.devices()) < 2:
        environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "partitioned"]
        done = subprocess.run(command, cwd=repo, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        return
    params = {"w": jnp.asarray(np.random.default_rng(0).standard_normal((64, 32)), jnp.float32)}
    cast = Cast("mxfp8", rounding="stochastic_a")
    optimizer = low_precision(optax.trace(0.9), cast, parameters=cast, master_weights=True)
    mesh = jax.make_mesh((len(jax.devices()),), ("x",))
    results = []
    for spread in (False, True):
        p = jax.device_put(params, NamedSharding(mesh, PartitionSpec("x"))) if spread else params
        state, step = optimizer.init(p), jax.jit(optimizer.step)
        for i in range(2):
            p, state = step(gradients(params, i), state, p)
        results.append((p, state))
    assert same(*results)


def test_bytes_names_and_small_states() -> None:
    params = {"nu": jnp.ones((64, 64)), "b": jnp.ones(64)}
    optimizer = low_precision(optax.adam(1e-3), {"mu": "float8_e4m3fn", "nu": "bfloat16"}, min_size=4096)
    state = optimizer.init(params)
    adam = state.inner[0]
    assert adam.mu["nu"].layout.cast.format.name == "float8_e4m3fn"  # not misled by the parameter's name
    assert adam.nu["nu"].layout.cast.format.name == "bfloat16"
    assert adam.mu["b"].dtype == jnp.float32
    assert (adam.mu["nu"].nbytes, adam.nu["nu"].nbytes) == (4096, 8192)
    assert state_nbytes(state) == 4096 + 8192 + 2 * 4 * 64 + 4 + 4 + 4  # counts, and the number of lost NaNs


def test_recipes_count_by_layer() -> None:
    recipe = Recipe(optimizer_state="bfloat16", seed=3, rules=[Rule("fc", exempt=True)])
    state = low_precision(optax.trace(0.9), recipe).init(parameters())
    assert isinstance(state.inner.trace["fc"]["w"], jax.Array)
    assert state.inner.trace["head"].layout.cast.format.name == "bfloat16"


def test_lost_nans_are_counted_under_jit_and_raised_eagerly() -> None:
    params = {"w": jnp.ones((4, 4))}
    optimizer = low_precision(optax.trace(0.9), "int8")
    g = {"w": jnp.ones((4, 4)).at[1, 2].set(jnp.nan)}
    _, state = jax.jit(optimizer.update)(g, optimizer.init(params), params)
    assert int(state.lost_nans) == 1
    with pytest.raises(lowp.RangeError, match=r"state 'trace' of parameter 'w'"):
        optimizer.update(g, optimizer.init(params), params)


def test_chains_and_schedules() -> None:
    params = parameters()
    inner = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.linear_schedule(1e-2, 0.0, 10)))
    optimizer = optax.chain(low_precision(inner, "mxfp8"), optax.scale(0.5))
    state = optimizer.init(params)
    updates, _ = jax.jit(optimizer.update)(gradients(params, 0), state, params)
    assert all(bool(jnp.isfinite(u).all()) for u in jax.tree.leaves(updates))
    scheduled = collage_adamw(lambda count: 1e-2 / (1 + count), variant="light")
    new, _ = scheduled.step(gradients(params, 0), scheduled.init(params), params)
    assert not same(new, params)


@pytest.mark.parametrize("states", [slow("dynamic8"), "mulaw4", "mxfp8"])
def test_a_regression_converges(states: str) -> None:
    rng = np.random.default_rng(0)
    x, truth = jnp.asarray(rng.standard_normal((256, 32)), jnp.float32), jnp.asarray(rng.standard_normal((32, 8)))
    y = x @ truth
    states_of: Any = {"mu": states, "nu": "bfloat16"} if states == "mxfp8" else states
    optimizer = low_precision(optax.adam(0.05), states_of)
    w = jnp.zeros((32, 8))

    def loss(w: Any) -> Any:
        return jnp.mean((x @ w - y) ** 2)

    @jax.jit
    def run(w: Any, state: Any) -> Any:
        def body(carry: Any, _: Any) -> Any:
            w, state = carry
            updates, state = optimizer.update(jax.grad(loss)(w), state, w)
            return (optax.apply_updates(w, updates), state), None

        return jax.lax.scan(body, (w, state), None, length=300)[0]

    w, _ = run(w, optimizer.init(w))
    assert float(loss(w)) < 0.05


def test_what_cannot_be_is_said() -> None:
    adam, params = optax.adam(1e-3), parameters()
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (3, {"states": "int8"}, lowp.ArgumentTypeError, "optimizer=3"),
        (adam, {}, lowp.ArgumentError, "nothing to keep"),
        (adam, {"states": "dynamic9"}, lowp.FormatError, "dynamic9"),
        (adam, {"states": "int8", "min_size": -1}, lowp.ArgumentError, "min_size=-1"),
        (adam, {"states": "int8", "encoded": 1}, lowp.ArgumentTypeError, "encoded=1"),
        (adam, {"states": "int8", "seed": -1}, lowp.ArgumentError, "seed=-1"),
        (adam, {"states": "int8", "rounding": "up"}, lowp.ArgumentError, "rounding='up'"),
    ]
    for optimizer, arguments, error, text in cases:
        with pytest.raises(error, match=text):
            low_precision(optimizer, **arguments)
    with pytest.raises(lowp.ArgumentError, match=r"'momentum'.*'0.mu', '0.nu'"):
        low_precision(adam, {"*mu": "int8", "momentum": "int8"}).init(params)
    with pytest.raises(lowp.ArgumentError, match="encoder"):
        low_precision(adam, parameters={"encoder.*": "int8"}).init(params)
    with pytest.raises(lowp.ArgumentError, match="master_weights=True"):
        low_precision(adam, master_weights=True).init(params)
    collage = collage_adamw()
    with pytest.raises(lowp.ArgumentError, match="params=None"):
        collage.update(params, collage.init(params))
    with pytest.raises(lowp.ArgumentError, match="variant='pluss'"):
        collage_adamw(variant="pluss")
    with pytest.raises(lowp.FormatError, match="logarithmic"):
        madam(fmt="posit16")
    with pytest.raises(lowp.ArgumentTypeError, match="bfloat16"):
        madam(fmt="lns16_f8").init(jnp.ones(2, jnp.bfloat16))
