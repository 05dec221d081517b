"""Imports stay light and go one way."""

import ast
import importlib
import importlib.util
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("formats", "rounding", "emulation", "hw_models")
HEAVY = ("numba", "torch", "jax", "matplotlib", "hypothesis", "pandas", "rich", "typer", "ml_dtypes", "scipy")


def loaded_by(code: str, names: tuple[str, ...]) -> set[str]:
    """Run `code` in a fresh interpreter with src/ on its path; return which of the modules it loaded."""
    head = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r})"
    script = f"{head}\n{code}\nprint(*({set(names)!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def sources(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*.py")) if "__pycache__" not in p.parts]


@pytest.mark.parametrize("module", ["lowp", *(f"lowp.{room}" for room in ROOMS), "lowp.testing"])
def test_import_is_light(module: str) -> None:
    assert loaded_by(f"import {module}", HEAVY) == set()


def test_import_loads_numpy_at_once() -> None:
    assert loaded_by("import lowp", ("numpy",)) == {"numpy"}


@pytest.mark.parametrize("heavy", ["numba", "rich"])
def test_the_probe_can_fail(heavy: str) -> None:
    pytest.importorskip(heavy)
    assert loaded_by(f"import lowp, {heavy}", HEAVY) >= {heavy}


def test_help_of_the_command_line_loads_no_framework() -> None:
    pytest.importorskip("typer")
    assert loaded_by("import lowp.cli", ("numba", "torch", "jax", "matplotlib", "pandas")) == set()


def test_every_module_imports() -> None:
    import lowp

    modules = [m.name for m in pkgutil.walk_packages(lowp.__path__, "lowp.") if not m.name.endswith("__main__")]
    assert {f"lowp.{room}" for room in ROOMS} <= set(modules)
    absent = {name for name in HEAVY if importlib.util.find_spec(name) is None}
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in absent:
                raise


def test_walking_everything_loads_no_bare_room() -> None:
    code = (
        "import importlib, pkgutil, lowp\n"
        "for m in pkgutil.walk_packages(lowp.__path__, 'lowp.'):\n"
        "    importlib.import_module(m.name)\n"
    )
    if any(importlib.util.find_spec(name) is None for name in ("torch", "typer", "rich", "hypothesis")):
        pytest.skip("an extra is absent")
    assert loaded_by(code, ROOMS) == set()


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_never_import_the_door(room: str) -> None:
    """`import lowp` and `from lowp import name` inside a room would close a circle; no import is relative."""
    for path in sources(ROOT / room):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert "lowp" not in {alias.name for alias in node.names}, path
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, path
                names = {alias.name for alias in node.names}
                assert node.module != "lowp" or names <= {*ROOMS, "_errors"}, path


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    environment = {"PYTHONPATH": str(root / "src"), "PATH": ""}
    return subprocess.run([sys.executable, "-P", "-c", code], cwd=root, env=environment, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the sources with their links."""
    pytest.importorskip("importlinter")
    for folder in ("src", *ROOMS):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_import_contracts_hold(copy: Path) -> None:
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("formats/spec.py", "import lowp.rounding", "rooms look down only"),
        ("rounding/__init__.py", "import lowp.hw_models", "rooms look down only"),
        ("hw_models/__init__.py", "import lowp.studies", "rooms never import the door"),
        ("hw_models/__init__.py", "import torch", "formats and costs need numpy at most"),
        ("rounding/exact.py", "import numba", "the oracle shares no code with the fast path"),
        ("rounding/exact.py", "import lowp.rounding._kernels", "the oracle shares no code with the fast path"),
    ],
)
def test_a_planted_import_is_caught(copy: Path, file: str, line: str, contract: str) -> None:
    path = copy / file
    path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    done = lint_imports(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{contract} BROKEN" in " ".join(done.stdout.split())
