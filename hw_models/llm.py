"""Inference of language models: the first token, every further one, and what it takes to hold the model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lowp._errors import ArgumentError, unknown_name
from lowp.hw_models.arguments import sizes
from lowp.hw_models.devices import Device
from lowp.hw_models.devices import device as find_device
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.model_shapes import Shape, Transformer, model_shape
from lowp.hw_models.model_workloads import DEFAULT_CONTEXT, workload
from lowp.hw_models.workload_cost import OperationCost, WorkloadCost, workload_cost

#: What is predicted: the prompt, one step of generating, or both with every step in between.
PHASES = ("prefill", "decode", "generate")


@dataclass(frozen=True)
class Llm:
    """What serving a language model costs.

    Attributes:
        phase: What `time` and `energy` are of.
        batch: Sequences at once.
        context: Tokens of each prompt, or keys in the cache of a decode step.
        new_tokens: Tokens generated after each prompt.
        prompt: The cost of the prompts, which yields the first token.
        step: The cost of one decode step; in a generation the mean of the first and the last in time.
        last_step: The cost of the last decode step.
    """

    phase: str
    batch: int
    context: int
    new_tokens: int
    prompt: WorkloadCost
    step: WorkloadCost
    last_step: WorkloadCost

    @cached_property
    def ttft(self) -> Estimate:
        """Seconds to the first token."""
        return self.prompt.time

    @cached_property
    def tpot(self) -> Estimate:
        """Seconds per further token of a sequence; in a generation on average."""
        return (self.step.time + self.last_step.time) * 0.5 if self.phase == "generate" else self.step.time

    @cached_property
    def time(self) -> Estimate:
        """Seconds of the phase."""
        if self.phase == "generate":
            steps = self.new_tokens - 1
            return self.ttft + self.tpot * steps if steps else self.ttft
        return self.ttft if self.phase == "prefill" else self.tpot

    @cached_property
    def energy(self) -> Estimate:
        """Joules of the phase on all devices.

        Raises:
            ArgumentError: The data lack the device's power, process or memory.
        """
        if self.phase == "prefill":
            return self.prompt.energy
        if self.phase == "decode":
            return self.step.energy
        steps = self.new_tokens - 1
        mean = (self.step.energy + self.last_step.energy) * 0.5
        return self.prompt.energy + mean * steps if steps else self.prompt.energy

    @cached_property
    def energy_per_token(self) -> Estimate:
        """Joules per token that the phase handles: of the prompts, or generated."""
        return self.energy * (1 / self._tokens)

    @property
    def _tokens(self) -> int:
        per_sequence = {"prefill": self.context, "decode": 1, "generate": self.new_tokens}[self.phase]
        return self.batch * per_sequence

    @cached_property
    def tokens_per_second(self) -> Estimate:
        """Tokens per second of the phase, of all sequences: of the prompts, or generated."""
        time, tokens = self.time, self._tokens
        return Estimate(
            tokens / time.value, tokens / time.high, tokens / time.low, "tokens/s", time.bound, time.provenance
        )

    @property
    def operations(self) -> tuple[OperationCost, ...]:
        """The cost of each operation: of the prompts for "prefill", else of the last decode step."""
        return self._main.operations

    @property
    def _main(self) -> WorkloadCost:
        return self.prompt if self.phase == "prefill" else self.last_step

    def by_operation(self) -> dict[str, Estimate]:
        """Return the seconds of each operation by name."""
        return self._main.by_operation()

    @property
    def memory(self) -> Estimate:
        """Bytes held on one device."""
        return (
            max((self._main.memory, self.prompt.memory), key=lambda memory: memory.value)
            if (self.phase == "generate")
            else self._main.memory
        )

    @property
    def fits(self) -> bool:
        """Whether one device's memory holds it, run-time memory not counted."""
        return self.memory.value <= self._main.device.need("capacity")

    @property
    def weight_bytes(self) -> float:
        """Bytes of the weights on one device, scales included."""
        return self._main.weight_bytes

    @property
    def kv_bytes(self) -> float:
        """Bytes of keys and values on one device, of all sequences, scales included."""
        return self._main.kv_bytes

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes of keys and values that one token of one sequence leaves on one device."""
        tokens = self.context + (self.new_tokens if self.phase == "generate" else 0)
        return self.kv_bytes / (self.batch * tokens)

    def describe(self) -> str:
        """Return the costs as text."""
        lines = [
            f"first token {self.ttft}",
            f"further tokens {self.tpot} each",
            f"throughput {self.tokens_per_second}",
            f"keys and values {self.kv_bytes_per_token / 1024:g} KiB per token, {self.kv_bytes / 2**30:.3g} GiB in all",
        ]
        return "\n".join([*lines, self._main.describe()])


def llm(
    model: str | Shape,
    phase: str = "decode",
    *,
    weights: Any = None,
    activations: Any = None,
    kv_cache: Any = None,
    head: Any = None,
    device: str | Device = "h100",
    batch: int = 1,
    context: int | None = None,
    new_tokens: int = 128,
    tensor_parallel: int = 1,
    fused: bool = True,
    stack: str = "",
) -> Llm:
    """Predict time, energy and memory of a language model's inference.

    Time is the sum of its operations, each predicted by itself: products as `gemm` (quantizing activations included),
    fused attention over keys and values in the cache's format, passes over memory, and all-reduces.

    Args:
        model: A name of `models()` or a shape; a decoder.
        phase: "prefill": the prompts; "decode": one more token for each sequence, with `context` keys; "generate":
            prompts of `context` tokens and `new_tokens` tokens after each.
        weights: Format of the weights of the layers; default bfloat16 (float16 on devices without it), as for all
            other formats.
        activations: Format of the left operands of products with weights.
        kv_cache: Format of keys and values.
        head: Format of the last layer's weights, which recipes usually leave alone.
        device: A device or its name.
        batch: Sequences at once.
        context: Tokens of each prompt, or keys of the decode step, the new token's included; default 2048.
        new_tokens: Tokens generated per sequence, for "generate".
        tensor_parallel: Devices that share each layer.
        fused: As `workload`.
        stack: Software, as `gemm`.

    Raises:
        ArgumentError: An unknown name, a size below 1, a model that is no decoder, or data that this needs are missing.
        FormatError: A format is unknown.

    Example:
        >>> wide = llm("llama-2-7b", device="a100", batch=1, context=2048)
        >>> narrow = llm("llama-2-7b", weights="int4_g128", device="a100", batch=1, context=2048)
        >>> wide.kv_bytes_per_token / 2**20, narrow.tpot.value < wide.tpot.value
        (0.5, True)
    """
    if phase not in PHASES:
        raise ArgumentError(unknown_name("phase", phase, PHASES))
    shape, machine = model_shape(model), find_device(device)
    if not isinstance(shape, Transformer) or shape.architecture != "decoder":
        raise ArgumentError(f"model={shape.name!r} is no language model; give `workload_cost` its `workload`.")
    batch, new_tokens = sizes(batch=batch, new_tokens=new_tokens)
    tokens = min(DEFAULT_CONTEXT, shape.positions or DEFAULT_CONTEXT) if context is None else sizes(context=context)[0]

    def cost(which: str, keys: int) -> WorkloadCost:
        work = workload(shape, phase=which, batch=batch, context=keys, tensor_parallel=tensor_parallel, fused=fused)
        return workload_cost(
            work,
            weights=weights,
            activations=activations,
            kv_cache=kv_cache,
            head=head,
            device=machine,
            stack=stack,
        )

    if phase == "generate":
        first, last = cost("decode", tokens + 1), cost("decode", tokens + new_tokens)
    else:
        first = last = cost("decode", tokens)
    return Llm(phase, batch, tokens, new_tokens, cost("prefill", tokens), first, last)
