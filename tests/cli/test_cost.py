"""`lowp cost`: predictions and the table of published numbers."""

import pytest

from lowp import hw
from lowp.hw_models.validation import validate
from lowp.hw_models.validation_page import validation_page
from tests.cli.conftest import Run, assert_refused


def test_validation_prints_every_published_number(lowp: Run) -> None:
    done = lowp("cost", "--validate", "--area", "gpu")
    checks = validate("gpu")
    assert done.code == 0
    assert all(check.key in done.out for check in checks)
    assert f"{sum(check.standing == 'reproduced' for check in checks)} reproduced" in done.out


def test_validation_as_markdown(lowp: Run) -> None:
    assert lowp("cost", "--validate", "--area", "cpu", "--markdown").out == validation_page(validate("cpu"))
    assert_refused(lowp("cost", "--markdown"), "belong to --validate")
    assert_refused(lowp("cost", "--validate", "--markdown", "--json"), "exclude each other")


def test_validation_as_json(lowp: Run) -> None:
    rows = lowp("cost", "--validate", "--area", "gpu", "--json").json
    by_key = {row["key"]: row for row in rows}
    assert list(by_key) == [check.key for check in validate("gpu")]
    peak = by_key["f01_a100_peak"]
    assert peak["published"] == 312
    assert peak["predicted"] == pytest.approx(311.9, abs=0.1)
    assert peak["within"] is True
    assert peak["error"] == pytest.approx(peak["predicted"] / 312 - 1)
    unpredicted = by_key["f27_genz"]
    assert (unpredicted["standing"], unpredicted["predicted"], unpredicted["within"]) == ("open", None, None)
    assert unpredicted["reason"]


def test_gemm(lowp: Run) -> None:
    options = ("cost", "gemm", 16, 8192, 4096, "--a", "bfloat16", "--b", "int4_g128", "--device", "a100")
    data = lowp(*options, "--json").json
    time = hw.gemm(16, 8192, 4096, "bfloat16", "int4_g128", device="a100")
    assert (data["time"]["value"], data["time"]["low"], data["time"]["high"]) == (time.value, time.low, time.high)
    energy = hw.gemm_energy(16, 8192, 4096, "bfloat16", "int4_g128", device="a100")
    assert data["energy"]["value"] == energy.value
    text = lowp(*options).out
    assert str(time) in text
    assert str(energy) in text
    assert "A100" in text


def test_llm(lowp: Run) -> None:
    options = ("cost", "llm", "llama-3-8b", "--weights", "int4_g128", "--kv-cache", "fp8", "--batch", 4)
    done = hw.llm("llama-3-8b", weights="int4_g128", kv_cache="fp8", batch=4)
    data = lowp(*options, "--json").json
    assert data["tpot"]["value"] == done.tpot.value
    assert data["kv_bytes_per_token"] == 65536
    assert sum(time["value"] for time in data["operations"].values()) == pytest.approx(data["time"]["value"])
    text = lowp(*options).out
    assert str(done.ttft) in text
    assert "64 KiB per token" in text
    assert lowp("cost", "llm", "--list").out.split() == hw.models()
    assert lowp("cost", "llm", "--list", "--json").json == hw.models()


def test_mac(lowp: Run) -> None:
    data = lowp("cost", "mac", "int8", "--target", "sky130", "--json").json
    unit = hw.mac("int8", target="sky130")
    assert data["area"]["value"] == unit.area.value
    assert data["product_bits"] == unit.datapath.product_bits
    wide = lowp("cost", "mac", "mxfp8", "--lanes", 32, "--target", "sky130", "--json").json
    assert wide["area"]["value"] > 10 * data["area"]["value"]
    assert "multiplier" in lowp("cost", "mac", "int8", "--blocks").out


def test_without_a_command_the_help_is_shown(lowp: Run) -> None:
    done = lowp("cost")
    assert done.code == 0
    assert "gemm" in done.out
    assert "--validate" in done.out


def test_bad_input_is_refused(lowp: Run) -> None:
    assert_refused(lowp("cost", "gemm", 0, 1, 1), "m=0 must be at least 1")
    assert_refused(lowp("cost", "gemm", 1, 1, 1, "--device", "h10"), "device='h10'", "'h100'")
    assert_refused(lowp("cost", "llm", "llama-2-8b"), "model='llama-2-8b'")
    assert_refused(lowp("cost", "llm"), "--list")
    assert_refused(lowp("cost", "mac", "int8", "--target", "sky13"), "'sky130'")
    assert_refused(lowp("cost", "--validate", "--area", "gpus"), "area='gpus'", "'gpu'")
    assert_refused(lowp("cost", "--area", "gpu"), "--validate")
    assert_refused(lowp("cost", "--validate", "gemm", 1, 1, 1), "--validate")
