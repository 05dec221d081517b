"""`lowp cost`: what formats cost on machines, and how far published numbers are reproduced."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lowp._errors import ArgumentError
from lowp.cli.output import JsonFlag, print_json, print_table

if TYPE_CHECKING:
    from lowp.hw_models.estimate import Estimate
    from lowp.hw_models.llm import Llm
    from lowp.hw_models.units import UnitCost
    from lowp.hw_models.validation import Check

cost = typer.Typer(
    help="Predict time, energy and size of formats on hardware, or check the models against published numbers.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DeviceOption = Annotated[str, typer.Option(help="A device, such as a100, h100, b200, mi300x, rtx_4090, tpu_v5e.")]


@cost.callback(invoke_without_command=True)
def _cost(
    context: typer.Context,
    validate: Annotated[
        bool, typer.Option("--validate", help="Print every published number with its prediction.")
    ] = False,
    area: Annotated[str | None, typer.Option(help="Only those of gpu, fpga, lut, asic or cpu.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print them as the page docs/validation.md.")] = False,
    json: JsonFlag = False,
) -> None:
    """Predict time, energy and size of formats on hardware, or check the models against published numbers."""
    if context.invoked_subcommand is not None:
        if validate or area is not None or markdown or json:
            raise ArgumentError(f"put options of {context.invoked_subcommand!r} after it; --validate stands alone.")
        return
    if not validate:
        if area is not None or markdown or json:
            raise ArgumentError("--area, --markdown and --json belong to --validate here.")
        print(context.get_help())
        return
    if markdown and json:
        raise ArgumentError("--markdown and --json exclude each other.")
    _validate(area, markdown, json)


def _validate(area: str | None, markdown: bool, json: bool) -> None:
    from lowp.hw_models.validation import validate
    from lowp.hw_models.validation_page import validation_page

    checks = validate(area)
    if markdown:
        print(validation_page(checks), end="")
        return
    if json:
        print_json([_check_data(check) for check in checks])
        return
    from rich.table import Table

    table = Table(
        "Key", "Quantity", "Published", "Predicted", "Unit", "Error", "Allowed", "Standing", "Source or reason"
    )
    for check in checks:
        table.add_row(
            check.key,
            check.quantity,
            _number(check.published),
            _number(check.predicted),
            check.unit,
            _error(check),
            _allowed(check),
            f"{check.standing} ({check.basis})" if check.basis else check.standing,
            check.reason or check.source,
        )
    counts = Counter(check.standing for check in checks)
    table.caption = ", ".join(f"{count} {standing}" for standing, count in counts.items())
    print_table(table)


def _check_data(check: Check) -> dict[str, Any]:
    numbers = {key: _plain(getattr(check, key)) for key in ("published", "predicted", "tolerance")}
    words = ("key", "area", "quantity", "unit", "mode", "kind", "standing", "source", "reason", "basis")
    within = check.within if check.standing in ("reproduced", "missed") else None
    data: dict[str, Any] = {key: getattr(check, key) for key in words}
    return {**data, **numbers, "error": _plain(check.error), "within": within}


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _error(check: Check) -> str:
    if check.mode == "below" or not math.isfinite(check.error):
        return "-"
    if check.mode == "absolute":
        return f"{check.predicted - check.published:+.3g}"
    return f"{check.error:+.1%}"


def _allowed(check: Check) -> str:
    if check.mode == "below":
        return "at most"
    if math.isnan(check.tolerance):
        return "-"
    return f"{check.tolerance:g}" if check.mode == "absolute" else f"{100 * check.tolerance:g} %"


@cost.command()
def gemm(
    m: Annotated[int, typer.Argument(metavar="M", help="Rows: tokens.")],
    n: Annotated[int, typer.Argument(metavar="N", help="Columns of the weights.")],
    k: Annotated[int, typer.Argument(metavar="K", help="Depth.")],
    a: Annotated[str, typer.Option("--a", help="Format of the activations.")] = "bfloat16",
    b: Annotated[str | None, typer.Option("--b", help="Format of the weights; default as --a.")] = None,
    out: Annotated[str, typer.Option(help="Format of the result.")] = "bfloat16",
    device: DeviceOption = "h100",
    stack: Annotated[str, typer.Option(help="Software whose kernels are meant, such as pytorch.")] = "",
    json: JsonFlag = False,
) -> None:
    """Predict time and energy of a matrix product, out[M, N] = a[M, K] @ b[K, N]."""
    from lowp.hw_models.devices import device as find_device
    from lowp.hw_models.energy import plan_energy
    from lowp.hw_models.gemm import plan

    weights, machine = b or a, find_device(device)
    done = plan(m, n, k, a, weights, out, machine, stack=stack)
    energy = plan_energy(done, machine)
    if json:
        data: dict[str, Any] = {"m": m, "n": n, "k": k, "a": a, "b": weights, "device": machine.name}
        data |= {"compute": done.compute, "bytes": done.bytes_moved}
        print_json({**data, "time": _estimate_data(done.time), "energy": _estimate_data(energy)})
        return
    rate = 2 * done.multiply_adds / done.time.value
    print(f"{a} x {weights}, {m} x {n} x {k}, computed in {done.compute} on {machine.title}")
    print(f"  time    {done.time}")
    print(f"  energy  {energy}")
    print(f"  rate    {rate / 1e12:.4g} Top/s, {rate / machine.peak(done.compute):.1%} of the peak")
    print(f"  model   {done.time.provenance}")


@cost.command()
def llm(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model, such as llama-2-7b; see --list.")] = "",
    phase: Annotated[str, typer.Option(help="prefill, decode or generate.")] = "decode",
    weights: Annotated[str | None, typer.Option(help="Format of the layers' weights; default bfloat16.")] = None,
    activations: Annotated[str | None, typer.Option(help="Format of products' activations.")] = None,
    kv_cache: Annotated[str | None, typer.Option(help="Format of keys and values.")] = None,
    device: DeviceOption = "h100",
    batch: Annotated[int, typer.Option(help="Sequences at once.")] = 1,
    context: Annotated[int | None, typer.Option(help="Tokens of each prompt, or keys; default 2048.")] = None,
    new_tokens: Annotated[int, typer.Option(help="Tokens generated per sequence, for generate.")] = 128,
    tensor_parallel: Annotated[int, typer.Option(help="Devices that share each layer.")] = 1,
    names: Annotated[bool, typer.Option("--list", help="List the models.")] = False,
    json: JsonFlag = False,
) -> None:
    """Predict first token, further tokens, energy and memory of a language model."""
    from lowp.hw_models.llm import llm as predict
    from lowp.hw_models.model_shapes import models

    if names or not model:
        if model or not names:
            raise ArgumentError("give the name of a model, or --list alone.")
        if json:
            print_json(models())
        else:
            print("\n".join(models()))
        return
    done = predict(
        model,
        phase,
        weights=weights,
        activations=activations,
        kv_cache=kv_cache,
        device=device,
        batch=batch,
        context=context,
        new_tokens=new_tokens,
        tensor_parallel=tensor_parallel,
    )
    if json:
        print_json(_llm_data(done))
    else:
        print(f"energy {done.energy}, per token {done.energy_per_token}\n{done.describe()}")


def _llm_data(done: Llm) -> dict[str, Any]:
    names = ("time", "energy", "memory", "ttft", "tpot", "tokens_per_second", "energy_per_token")
    data: dict[str, Any] = {name: _estimate_data(getattr(done, name)) for name in names}
    data |= {name: getattr(done, name) for name in ("phase", "batch", "context", "weight_bytes", "kv_bytes", "fits")}
    data["kv_bytes_per_token"] = done.kv_bytes_per_token
    data["operations"] = {name: _estimate_data(time) for name, time in done.by_operation().items()}
    return data


@cost.command()
def mac(
    a: Annotated[str, typer.Argument(metavar="FORMAT", help="Format of both operands, or of the left.")],
    b: Annotated[str | None, typer.Option("--b", help="Format of the right operand.")] = None,
    accumulator: Annotated[str | None, typer.Option(help='Format of the running sum, or "exact".')] = None,
    lanes: Annotated[int, typer.Option(help="Products per step.")] = 1,
    target: Annotated[str, typer.Option(help="A technology, such as gate_model, sky130, n7.")] = "gate_model",
    blocks: Annotated[bool, typer.Option("--blocks", help="Also print what the unit is made of.")] = False,
    json: JsonFlag = False,
) -> None:
    """Predict the size of a unit that multiplies and adds, on an ASIC or FPGA."""
    from lowp.hw_models.units import dot_unit
    from lowp.hw_models.units import mac as one

    options: dict[str, Any] = {"target": target, "accumulator": accumulator}
    unit = one(a, b, **options) if lanes == 1 else dot_unit(a, b, lanes=lanes, **options)
    figures = _figures(unit)
    if json:
        data = {"a": a, "b": b or a, "target": target, "lanes": lanes}
        data |= {"product_bits": unit.datapath.product_bits, "accumulator_bits": unit.datapath.accumulator_bits}
        print_json({**data, **{name: _estimate_data(value) for name, value in figures.items()}})
        return
    print(f"{a} x {b or a}, {lanes} {'lane' if lanes == 1 else 'lanes'}, on {target}")
    for name, value in figures.items():
        print(f"  {name:7} {value}")
    if blocks:
        print(unit.datapath.describe())


def _figures(unit: UnitCost) -> dict[str, Estimate]:
    """Return what the target has coefficients of."""
    from lowp._errors import Error

    found = {}
    for name in ("area", "energy", "delay", "lut", "ff", "dsp", "bram", "clock"):
        try:
            found[name] = getattr(unit, name)
        except Error:
            continue
    return found


def _estimate_data(estimate: Estimate) -> dict[str, Any]:
    names = ("value", "low", "high", "unit", "bound", "provenance")
    return {name: getattr(estimate, name) for name in names}
