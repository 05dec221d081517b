"""What emulation costs: a transformer block's training step in each recipe, as a multiple of float32's.

`python -m benchmarks.training_step [--widths 1024 2048] [--tokens 1024] [--rounds 7]`
"""

import argparse
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.timing import take_turns
from benchmarks.training.gpt import Block
from benchmarks.training.settings import Settings

import lowp.torch as lt
from lowp import Recipe

OUT = Path("build/bench")
RECIPES = (
    *("fp8_current", "fp8_transformer_engine", "fp8_deepseek_v3", "mxfp8", "mxfp4", "mxfp4_sr_rht", "nvfp4"),
    *("nvfp4_pretraining", "quartet"),
)
LIMIT = 2.0
BESIDE = ("quartet",)  # shown, but not held to the limit


def step_of(recipe: Recipe | None, width: int, tokens: int) -> Callable[[], Any]:
    """Return a call that runs one step: forward, backward and the update by plain gradient descent."""
    torch.manual_seed(0)
    context = min(tokens, 256)
    block = Block(Settings(width=width, heads=width // 64))
    x = torch.randn(tokens // context, context, width)
    optimizer = torch.optim.SGD(block.parameters(), lr=1e-3)
    emulation = lt.emulate(recipe) if recipe else contextlib.nullcontext()

    def step() -> torch.Tensor:
        with emulation:
            inputs = x.clone().requires_grad_()
            loss = block(inputs).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.detach()

    return step


def measure(width: int, tokens: int, rounds: int) -> list[dict[str, Any]]:
    """Time float32 and every recipe in turns."""
    calls = {"float32": step_of(None, width, tokens)}
    calls |= {name: step_of(Recipe.named(name), width, tokens) for name in RECIPES}
    for call in calls.values():
        call()
    timings = take_turns(calls, rounds, budget_s=20.0)
    plain = timings["float32"]
    return [
        {
            "width": width, "tokens": tokens, "recipe": name, "ms": t.median / 1e6, "least ms": t.min / 1e6,
            "times float32": t.median / plain.median, "least times": t.min / plain.min,
        }
        for name, t in timings.items()
    ]  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Return the timings as a Markdown table."""
    lines = ["| width | tokens | recipe | ms/step | x float32 | x float32, least samples |"]
    lines += ["| ---: " * 2 + "| --- " + "| ---: " * 3 + "|"]
    for r in rows:
        cells = [f"{r['ms']:.0f}", f"{r['times float32']:.2f}", f"{r['least times']:.2f}"]
        lines.append(f"| {r['width']} | {r['tokens']} | {r['recipe']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, print, write; the exit status is 1 if FP8, MXFP4 or NVFP4 costs more than twice float32."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rows = [row for width in options.widths for row in measure(width, options.tokens, options.rounds)]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "training_step.json").write_text(json.dumps(rows, indent=1))
    print(table(rows))
    return int(any(r["least times"] > LIMIT for r in rows if r["recipe"] not in BESIDE))


if __name__ == "__main__":
    raise SystemExit(main())
