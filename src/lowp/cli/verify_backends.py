"""NumPy, torch and JAX on the same inputs, beside the exact oracle: the same bits, or a list of differences."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from lowp._errors import PrecisionWarning
from lowp.formats import Block, Format, Packed, ScalarFormat, parse
from lowp.formats.ranked import RankedFormat
from lowp.formats.spec import finite_values
from lowp.rounding import exact, quantize
from lowp.rounding.exact_block import EXACT_RECIPES, decode_block, encode_block
from lowp.rounding.modes import rounding as rounding_mode
from lowp.rounding.random_bits import keys, words

#: One of each kind.
DEFAULT_FORMATS = (
    *("float8_e4m3fn", "float8_e5m2", "bfloat16", "float16", "e5m7", "float6_e3m2fn", "float4_e2m1fn", "int8"),
    *("posit8_es2", "posit16_es2", "takum16_linear", "lns8_f3", "nf4"),
    *("mxfp8_e4m3", "mxfp4", "mxint8", "nvfp4", "int8_row", "int4_g128"),
)
DEFAULT_MODES = ("ties_to_even", "toward_zero", "stochastic_a")
COLUMNS = 128
_MANY = 1 << 19
_ROWS = 24
#: Inputs of a mode that the oracle is asked about.
_ASKED = 256
_NO_ORACLE = "–"

Backend = Callable[[Any, Format, str, int], Any]


@dataclass
class Row:
    """One format and mode: for each backend and for the oracle how many results differ, or what was raised.

    `first` is an input (bits), what was wanted and what was given, of the first difference.
    """

    format: str
    rounding: str
    inputs: int
    differing: dict[str, int | str]
    asked: int
    first: dict[str, tuple[str, str, str]]

    @property
    def agrees(self) -> bool:
        """Whether nothing differs and nothing failed."""
        return all(count in (0, _NO_ORACLE) for count in self.differing.values())

    def data(self) -> dict[str, Any]:
        """Return the row for JSON."""
        return vars(self) | {"agrees": self.agrees}


def backends() -> dict[str, Backend]:
    """Return the ways to round that this machine has, beside NumPy's on float32."""
    found: dict[str, Backend] = {"NumPy in place": _numpy_in_place, "NumPy float64": _numpy_float64}
    if find_spec("torch"):
        found["torch CPU"] = partial(_torch, device="cpu")
        import torch

        if torch.cuda.is_available():
            found["torch CUDA"] = partial(_torch, device="cuda")
    if find_spec("jax"):
        import jax

        found["JAX"] = partial(_jax, device=jax.devices()[0], compiled=False)
        for device in {d.platform: d for d in (*jax.devices("cpu"), *jax.devices())}.values():
            found[f"jax.jit {device.platform.upper()}"] = partial(_jax, device=device, compiled=True)
    return found


def _numpy_in_place(x: Any, form: Format, mode: str, seed: int) -> Any:
    """Round an array so large that all threads and tables are used; it begins with the same numbers."""
    many = np.tile(x, (-(-_MANY // x.size), 1))
    return quantize(many, form, mode, seed=seed, out=many)[: len(x)]


def _numpy_float64(x: Any, form: Format, mode: str, seed: int) -> Any:
    """Round the same numbers as float64; the results are float32 numbers too where they are for float32."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return quantize(x.astype(np.float64), form, mode, seed=seed).astype(np.float32)


def _torch(x: Any, form: Format, mode: str, seed: int, device: str) -> Any:
    import torch

    return quantize(torch.from_numpy(x.copy()).to(device), form, mode, seed=seed).cpu().numpy()


def _jax(x: Any, form: Format, mode: str, seed: int, device: Any, compiled: bool) -> Any:
    import jax

    def function(v: Any) -> Any:
        return quantize(v, form, mode, seed=seed)

    return np.asarray((jax.jit(function) if compiled else function)(jax.device_put(x, device)))


def aimed(form: Format, seed: int = 0) -> Any:
    """Return inputs for a format in rows of 128: its values, ties and their neighbours, ends of ranges, any bits.

    For a block format: blocks of all magnitudes whose quotients lie on and beside the ties of the element.
    """
    rng = np.random.default_rng(seed)
    element = form.element if isinstance(form, Block) else form
    near = _near(element) if isinstance(element, ScalarFormat) and element.bits <= 16 else np.ones(1, np.float32)
    count = _ROWS * COLUMNS
    x = rng.choice(near, count) if near.size > count else np.resize(near, count)
    usual = rng.standard_normal(count).astype(np.float32)
    pick = rng.random(count)
    x = np.where(pick < 0.25, usual, x)
    if isinstance(form, Block | Packed):
        x = np.where(np.isfinite(x) & (np.abs(x) < 1e30), x, usual).reshape(_ROWS, COLUMNS)
        return x * np.exp2(rng.integers(-20, 20, (_ROWS, 1))).astype(np.float32)
    anything = rng.integers(0, 1 << 32, count, dtype=np.uint32).view(np.float32)
    return np.where(pick > 0.75, anything, x).reshape(_ROWS, COLUMNS)


def _near(form: ScalarFormat) -> Any:
    """Return values, middles and extremes of both signs with their float32 neighbours."""
    values = np.array([float(v) for v in finite_values(form)])
    info = np.finfo(np.float32)
    rest = [0.0, np.inf, np.nan, info.max, info.smallest_subnormal, info.tiny, *(form.max * f for f in (1.06, 1.5, 4))]
    with np.errstate(over="ignore", under="ignore"):
        x = np.concatenate([values, (values[1:] + values[:-1]) / 2, rest]).astype(np.float32)
        near = np.concatenate([x, np.nextafter(x, np.float32(np.inf)), np.nextafter(x, np.float32(-np.inf))])
    return np.concatenate([near, -near])


def check(names: list[str], modes: list[str], seed: int = 0, advance: Callable[[], None] = lambda: None) -> list[Row]:
    """Compare all backends of this machine in every format and mode."""
    ways = backends()
    rows = []
    for name in names:
        form = parse(name)
        for mode in modes:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PrecisionWarning)  # inputs of all magnitudes are meant to clip
                rows.append(_row(form, rounding_mode(mode).name, seed, ways))
            advance()
    return rows


def _row(form: Format, mode: str, seed: int, ways: dict[str, Backend]) -> Row:
    x = _held(aimed(form, seed), form, mode, seed)
    wanted = quantize(x, form, mode, seed=seed)
    row = Row(form.name, mode, x.size, {}, 0, {})
    for name, way in ways.items():
        try:
            got = way(x, form, mode, seed)
        except Exception as error:  # noqa: BLE001 - whatever a backend raises is a finding
            row.differing[name] = f"{type(error).__name__}: {error}".split("\n")[0][:200]
        else:
            _count(row, name, x, wanted, got)
    asked = _oracle(x, form, mode, seed)
    if asked is None:
        row.differing["oracle"] = _NO_ORACLE
    else:
        where, right = asked
        row.asked = int(where.size)
        _count(row, "oracle", x.reshape(-1)[where], right, wanted.reshape(-1)[where])
    return row


def _held(x: Any, form: Format, mode: str, seed: int) -> Any:
    """Return inputs with those replaced by 1 whose result float32 does not hold, which is an error everywhere."""
    if not isinstance(form, RankedFormat):
        return x
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        exactly = quantize(x.astype(np.float64), form, mode, seed=seed)
        held = np.isnan(exactly) | (exactly.astype(np.float32) == exactly) | (np.isinf(exactly))
        near = np.abs(exactly) < np.finfo(np.float32).max  # values of logarithmic formats may be rounded
    return np.where(held | near & (np.abs(exactly) > np.finfo(np.float32).tiny), x, np.float32(1))


def _count(row: Row, name: str, x: Any, wanted: Any, got: Any) -> None:
    """Note how many results differ in their bits; all NaN are one result."""
    a, b = np.asarray(wanted, np.float32), np.asarray(got, np.float32)
    different = (a.view(np.uint32) != b.view(np.uint32)) & ~(np.isnan(a) & np.isnan(b))
    row.differing[name] = int(np.count_nonzero(different))
    if different.any():
        i = np.flatnonzero(different)[0]
        texts = (f"0x{int(v.reshape(-1)[i : i + 1].view(np.uint32)[0]):08x}" for v in (np.asarray(x), a, b))
        row.first[name] = tuple(texts)  # type: ignore[assignment]


def _oracle(x: Any, form: Format, mode: str, seed: int) -> tuple[Any, Any] | None:
    """Return places in the flat input and the exact results there; None where the oracle has no such format."""
    if isinstance(form, ScalarFormat):
        return _scalar_oracle(x.reshape(-1), form, mode, seed)
    if not isinstance(form, Block) or form.recipe not in EXACT_RECIPES or form.tensor_scale is not None:
        return None
    size = COLUMNS if form.size == "row" else form.size
    return _block_oracle(x, form, size, mode, seed) if isinstance(size, int) else None


def _scalar_oracle(x: Any, form: ScalarFormat, mode: str, seed: int) -> tuple[Any, Any]:
    where = np.flatnonzero(~np.isnan(x))
    where = np.sort(np.random.default_rng(seed).permutation(where)[:_ASKED])
    return where, np.array(
        [_single(exact.quantize(float(x[i]), form, mode, random=w)) for i, w in _drawn(where, mode, seed)]
    )


def _block_oracle(x: Any, form: Block, size: int, mode: str, seed: int) -> tuple[Any, Any]:
    """Take every block of a few rows."""
    where = np.arange(2 * COLUMNS)
    drawn = dict(_drawn(where, mode, seed))
    right: list[Any] = []
    for start in range(0, where.size, size):
        places = range(start, min(start + size, where.size))
        random = None if drawn[start] is None else [w for i in places if (w := drawn[i]) is not None]
        scale, codes, zero = encode_block(
            x.reshape(-1)[places.start : places.stop].tolist(), form.element, form.scale, form.recipe,
            zero_point=form.zero_point, rounding=mode, random=random,
        )  # fmt: skip
        values = decode_block(scale, codes, zero, form.element, form.scale)
        right += [_single(exact.quantize(v, "float32", overflow="infinity_or_nan")) for v in values]
    return where, np.array(right)


def _drawn(where: Any, mode: str, seed: int) -> Iterator[tuple[int, int | None]]:
    """Yield places, and the random word of each if the mode is stochastic."""
    random = words(keys(seed), 0, int(where.max()) + 1) if rounding_mode(mode).variant else None
    for i in where:
        yield int(i), None if random is None else int(random[i])


def _single(meaning: Any) -> np.float32:
    with np.errstate(over="ignore", under="ignore"):
        return np.float32(float(meaning))
