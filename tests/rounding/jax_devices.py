"""Eight virtual devices round their parts of one array as one device would round all of it. Run by test_jax.py."""

import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import lowp
import lowp.jax as lj

ROWS, COLUMNS = 16, 64


def same(got: object, wanted: np.ndarray) -> bool:
    return np.array_equal(np.asarray(got).view(np.int32), wanted.view(np.int32))


def main() -> None:
    assert jax.device_count() == 8
    x = np.random.default_rng(0).standard_normal((ROWS, COLUMNS)).astype(np.float32) * 3
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(kind,) * 2)
        for name in ("float8_e4m3fn", "nf4", "posit16_es1", "mxfp4"):
            wanted = lowp.quantize(x, name, "stochastic_a", seed=9)
            spread = jax.device_put(x, NamedSharding(mesh, P("a", "b")))

            def whole(v, name=name):
                return lj.quantize(v, name, "stochastic_a", seed=9)

            assert same(jax.jit(whole)(spread), wanted), name
            assert same(whole(spread), wanted), name

            def part(v, name=name):
                start = (lax.axis_index("a") * (ROWS // 4), lax.axis_index("b") * (COLUMNS // 2))
                return lj.quantize(v, name, "stochastic_a", seed=9, shard=lj.Shard(start, (ROWS, COLUMNS)))

            pieces = jax.shard_map(part, mesh=mesh, in_specs=P("a", "b"), out_specs=P("a", "b"))
            assert same(jax.jit(pieces)(spread), wanted), name
            gradient = jax.jit(jax.grad(lambda v, pieces=pieces: pieces(v).sum()))(spread)
            assert np.array_equal(gradient, np.ones_like(x)), name
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)

    def with_tensor_scale(v):
        return lj.quantize(v, "nvfp4", axis_name=("a", "b"))

    pieces = jax.shard_map(with_tensor_scale, mesh=mesh, in_specs=P("a", "b"), out_specs=P("a", "b"))
    assert same(jax.jit(pieces)(jnp.asarray(x)), lowp.quantize(x, "nvfp4"))


main()
