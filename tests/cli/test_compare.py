"""`lowp compare`: tensors of files, and files that are no good."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from lowp.cli.output import name_list
from tests.cli.conftest import Run, assert_refused

safetensors = pytest.importorskip("safetensors.numpy")
X = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two float tensors, one of integers, one empty."""
    path = tmp_path / "x.safetensors"
    tensors = {"b": X, "a": X[:2].astype(np.float16), "ids": np.arange(3), "none": np.zeros((0, 4), np.float32)}
    safetensors.save_file(tensors, path)
    return path


def test_errors_are_those_of_the_definition(lowp: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    (line,) = lowp("compare", tmp_path / "x.npy", "--formats", "fp8", "--json").json["lines"]
    exact = X.astype(np.float64)
    noise = X.astype(ml_dtypes.float8_e4m3fn).astype(np.float64) - exact
    assert line["sqnr_db"] == pytest.approx(10 * np.log10(np.sum(exact**2) / np.sum(noise**2)), abs=1e-9)
    assert line["max_relative_error"] == pytest.approx(np.max(np.abs(noise / exact)), abs=1e-15)
    assert (line["tensor"], line["shape"], line["bits_per_value"]) == ("x", [8, 64], 8.0)


def test_a_safetensors_file(lowp: Run, file: Path) -> None:
    data = lowp("compare", file, "--formats", "fp8,mxfp4", "--json").json
    assert {(x["tensor"], x["format"]) for x in data["lines"]} == {(t, f) for t in "ab" for f in ("fp8", "mxfp4")}
    assert [x["format"] for x in data["total"]] == ["fp8", "mxfp4"]
    assert data["total"][1]["bits_per_value"] == 4.25
    assert data["total"][0]["max_relative_error"] == max(
        x["max_relative_error"] for x in data["lines"] if x["format"] == "fp8"
    )
    assert {s["name"]: s["reason"] for s in data["skipped"]} == {"ids": "I64", "none": "empty"}


def test_text_has_a_line_per_tensor_and_format(lowp: Run, file: Path) -> None:
    out = lowp("compare", file, "--formats", "fp8,mxfp4").out
    assert out.count("mxfp4") == 3
    assert "all tensors" in out
    assert "Not compared: " in out


def test_bfloat16_is_read_exactly(lowp: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.save_file({"x": X.astype(ml_dtypes.bfloat16)}, path)
    (line,) = lowp("compare", path, "--formats", "bfloat16", "--json").json["lines"]
    assert line["sqnr_db"] == "inf"
    assert line["max_relative_error"] == 0


def test_packed_and_ranked_formats(lowp: Run, tmp_path: Path) -> None:
    x = np.random.default_rng(2).standard_normal((16, 256)).astype(ml_dtypes.bfloat16).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    names = "ggml_q4_k,posit16,lns8_f3,dfloat11,bnb_nf4"
    lines = {x["format"]: x for x in lowp("compare", tmp_path / "x.npy", "--formats", names, "--json").json["lines"]}
    assert [lines[n]["bits_per_value"] for n in ("ggml_q4_k", "posit16", "lns8_f3", "bnb_nf4")] == [4.5, 16, 8, 4.5]
    assert 10 < lines["dfloat11"]["bits_per_value"] < 13  # what its code takes, table included
    assert lines["dfloat11"]["sqnr_db"] == "inf"
    assert 20 < lines["ggml_q4_k"]["sqnr_db"] < 26
    assert 30 < lines["lns8_f3"]["sqnr_db"] < 34  # steps of 2^(1/8)
    assert lowp("compare", tmp_path / "x.npy", "--formats", names).code == 0


def test_sorting(lowp: Run, file: Path) -> None:
    lines = lowp("compare", file, "--formats", "bf16,fp8,int4_row", "--sort", "sqnr", "--json").json["lines"]
    assert [x["sqnr_db"] for x in lines] == sorted(x["sqnr_db"] for x in lines)
    assert_refused(lowp("compare", file, "--sort", "sqn"), "sort='sqn'", "'sqnr'")


def test_npz_scalars_and_higher_dimensions(lowp: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", scalar=np.float64(0.1), conv=X.reshape(8, 4, 4, 4), flat=X)
    lines = lowp("compare", tmp_path / "x.npz", "--formats", "mxfp4", "--json").json["lines"]
    by_name = {x["tensor"]: x for x in lines}
    assert by_name["conv"]["sqnr_db"] == by_name["flat"]["sqnr_db"]
    assert by_name["conv"]["shape"] == [8, 4, 4, 4]
    assert by_name["scalar"]["bits_per_value"] == 12


def test_a_missing_file_is_refused(lowp: Run, tmp_path: Path) -> None:
    assert_refused(lowp("compare", tmp_path / "none.npy"), "none.npy", "does not exist")
    assert_refused(lowp("compare", tmp_path / "none.bin"), "none.bin", ".safetensors, .npy, .npz")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_safetensors_file_is_refused(lowp: Run, file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    assert_refused(lowp("compare", file), "x.safetensors", "corrupted or truncated")


def test_a_corrupted_safetensors_file_is_refused(lowp: Run, file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[8:12] = b"\xff\xff\xff\xff"
    file.write_bytes(data)
    assert_refused(lowp("compare", file), "x.safetensors", "corrupted or truncated")


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_a_broken_numpy_file_is_refused(lowp: Run, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    (np.save if name == "x.npy" else np.savez)(path, X)
    path.write_bytes(path.read_bytes()[:-200])
    assert_refused(lowp("compare", path), name, "is not a whole")
    path.write_bytes(b"nothing of the kind")
    assert_refused(lowp("compare", path), name, "is not a whole")


@pytest.mark.parametrize("dtype", ["int64", "complex64", "U3", "bool"])
def test_a_wrong_dtype_is_refused(lowp: Run, tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.ones(3, dtype))
    assert_refused(lowp("compare", path), np.dtype(dtype).name, "allowed: float16, bfloat16, float32, float64")


def test_pickled_objects_are_refused(lowp: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert_refused(lowp("compare", tmp_path / "x.npy"), "x.npy")


def test_an_unknown_format_is_refused_before_the_file_is_read(lowp: Run, tmp_path: Path) -> None:
    assert_refused(lowp("compare", tmp_path / "none.npy", "--formats", "fp8,fpp4"), "format='fpp4'", "'fp4'")
    assert_refused(lowp("compare", tmp_path / "none.npy", "--formats", ","), "formats=','")


def test_commas_inside_brackets_belong_to_the_name() -> None:
    text = "fp8, ap_fixed<8,4>,block[fp4,16,e4m3fn]"
    assert name_list("formats", text) == ["fp8", "ap_fixed<8,4>", "block[fp4,16,e4m3fn]"]


def test_a_format_that_fails_a_tensor_does_not_stop_the_rest(lowp: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", bad=X[0], good=X)  # one dimension has no two-dimensional tiles
    options = (tmp_path / "x.npz", "--formats", "fp8_tile128,float16,fp8", "--sort")
    data = lowp("compare", *options, "error", "--json").json
    failed = [x for x in data["lines"] if x["error"]]
    assert [(x["tensor"], x["format"], x["sqnr_db"]) for x in failed] == [("bad", "fp8_tile128", None)]
    assert "1 dimension" in failed[0]["error"]
    assert len(data["lines"]) == 6
    (total,) = (x for x in data["total"] if x["format"] == "fp8_tile128")
    assert (total["error"], total["shape"]) == ("left out: 1", [512])
    text = lowp("compare", *options, "sqnr")
    assert text.code == 0
    assert failed[0]["error"] in text.out


def test_nothing_that_fits_is_refused(lowp: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X[0])
    assert_refused(lowp("compare", tmp_path / "x.npy", "--formats", "fp8_tile128"), "no format fits any tensor")


def test_a_relative_error_is_nan_where_sqnr_is(lowp: Run, tmp_path: Path) -> None:
    x = X.copy()
    x[0, 0] = np.nan
    np.savez(tmp_path / "x.npz", x=x, y=X)
    data = lowp("compare", tmp_path / "x.npz", "--formats", "fp8", "--json").json
    for line in (data["lines"][0], data["total"][0]):
        assert (line["sqnr_db"], line["max_relative_error"]) == ("nan", "nan")
    assert data["lines"][1]["max_relative_error"] <= 1


def test_squares_of_large_values_do_not_overflow(lowp: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=X.astype(np.float64) * 2.0**700, y=X)
    lines = lowp("compare", tmp_path / "x.npz", "--formats", "e11m3", "--json").json["lines"]
    assert lines[0]["sqnr_db"] == pytest.approx(lines[1]["sqnr_db"])


def test_8_bit_floats_are_named(lowp: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.save_file({"x": X, "y": X.astype(ml_dtypes.float8_e4m3fn)}, path)
    assert lowp("compare", path, "--formats", "fp8", "--json").json["skipped"] == [{"name": "y", "reason": "F8_E4M3"}]
