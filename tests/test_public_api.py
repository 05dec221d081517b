"""The public names are complete, documented and where they say they are."""

import importlib
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent

ROOMS = ("lowp.formats", "lowp.rounding", "lowp.emulation", "lowp.hw_models")
TABLES_OF_CONTENTS = ("lowp", *ROOMS, "lowp.testing")
MODULES = (*TABLES_OF_CONTENTS, "lowp.hw", "lowp.studies", "lowp.torch", "lowp.jax")


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> ModuleType:
    if request.param in ("lowp.torch", "lowp.jax"):
        pytest.importorskip(request.param.removeprefix("lowp."))
    return importlib.import_module(request.param)


def public_names(module: ModuleType) -> set[str]:
    """Return what a table of contents re-exports from the project, or what any other module defines itself."""
    owners = "lowp" if module.__name__ in TABLES_OF_CONTENTS else module.__name__
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and f"{getattr(value, '__module__', '')}.".startswith(f"{owners}.")
    }


def test_all_lists_what_exists(module: ModuleType) -> None:
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert missing == []
    assert len(module.__all__) == len(set(module.__all__))


def test_all_is_complete(module: ModuleType) -> None:
    assert public_names(module) <= set(module.__all__)


def test_dir_shows_all(module: ModuleType) -> None:
    assert set(module.__all__) <= set(dir(module))


def test_every_public_name_is_documented(module: ModuleType) -> None:
    assert inspect.getdoc(module)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.ismodule(value) or inspect.isclass(value) or callable(value):
            assert inspect.getdoc(value), f"{module.__name__}.{name} has no docstring"


def test_every_public_method_is_documented(module: ModuleType) -> None:
    for name in module.__all__:
        value = getattr(module, name)
        if not inspect.isclass(value) or not value.__module__.startswith("lowp"):
            continue
        for method, member in vars(value).items():
            if not method.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                assert inspect.getdoc(getattr(value, method)), f"{module.__name__}.{name}.{method}"


def test_study_can_be_called_before_and_after_its_package_is_imported() -> None:
    for first in ("", "import lowp.studies; ", "from lowp.studies import StudyResult; "):
        check = "assert callable(lowp.study), lowp.study"
        code = f"{first}import lowp; {check}; import lowp.studies; {check}"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_version_is_the_declared_one() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert importlib.import_module("lowp").__version__ == declared
    assert f"version: {declared}\n" in (ROOT / "CITATION.cff").read_text()
