"""What ships is what is on disk: the declared packages, the links, the wheel, the sdist, the editable install."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest

ROOT = Path(__file__).resolve().parent.parent
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FOLDERS = {name: ROOT / folder for name, folder in SETUPTOOLS["package-dir"].items()}
ROOMS = [name for name in FOLDERS if name.count(".") == 1]
NOT_SHIPPED = shutil.ignore_patterns(
    ".*", "build", "dist", "*.egg-info", "__pycache__", "tests", "notebooks", "benchmarks"
)

needs_setuptools = pytest.mark.skipif(importlib.util.find_spec("setuptools") is None, reason="setuptools is not here")


def folder_of(package: str) -> Path:
    """Return the folder of a declared package, by the mapping of its room or of the door."""
    owner = max((name for name in FOLDERS if f"{package}.".startswith(f"{name}.")), key=len)
    return FOLDERS[owner].joinpath(*package.removeprefix(owner).strip(".").split("."))


def packages_on_disk() -> set[str]:
    """Return every folder with an __init__.py in the door and the rooms; links are not followed."""
    found = set()
    for name, folder in FOLDERS.items():
        for path, subfolders, files in os.walk(folder):
            subfolders[:] = [s for s in subfolders if s != "__pycache__"]
            if "__init__.py" in files:
                found.add(".".join((name, *Path(path).relative_to(folder).parts)))
    return found


def modules_and_data() -> set[str]:
    """Return the names a wheel must hold: the modules of the packages, and every other file inside them."""
    names = set()
    for name, folder in FOLDERS.items():
        for path, subfolders, files in os.walk(folder):
            subfolders[:] = [s for s in subfolders if s != "__pycache__" and not s.endswith(".egg-info")]
            inside = Path(*name.split("."), Path(path).relative_to(folder))
            names |= {(inside / f).as_posix() for f in files if f != "README.md" and not f.endswith((".nbi", ".nbc"))}
    return names - {f"lowp/{room.removeprefix('lowp.')}" for room in ROOMS}  # links that came as text files


def run(*command: str | Path, cwd: Path, path: str = "") -> str:
    environment = os.environ | {"PYTHONPATH": path, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build_wheel(source: Path, into: Path) -> Path:
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", into)
    run(sys.executable, "-m", "pip", "wheel", *options, source, cwd=into.parent)
    (wheel,) = into.glob("lowp-*.whl")
    return wheel


def contents(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel by name, without its metadata folder."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, so that building leaves nothing behind in the original."""
    copy = tmp_path_factory.mktemp("copy") / "lowp"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=NOT_SHIPPED)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


def test_declared_packages_are_the_packages_on_disk() -> None:
    assert set(SETUPTOOLS["packages"]) == packages_on_disk()
    assert len(SETUPTOOLS["packages"]) == len(set(SETUPTOOLS["packages"]))


def test_declared_packages_have_their_folders() -> None:
    assert [p for p in SETUPTOOLS["packages"] if not (folder_of(p) / "__init__.py").is_file()] == []


@pytest.mark.parametrize("room", ROOMS)
def test_links_lead_to_their_rooms(room: str) -> None:
    link = ROOT / "src" / "lowp" / room.removeprefix("lowp.")
    if link.is_file():
        pytest.skip("this checkout was made without symbolic links")
    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    assert link.resolve() == FOLDERS[room]


@needs_setuptools
def test_wheel_holds_exactly_the_files_on_disk(wheel: Path) -> None:
    names = set(contents(wheel))
    assert names == modules_and_data()
    assert {name.split("/")[0] for name in names} == {"lowp"}


@needs_setuptools
def test_wheel_holds_the_bytes_on_disk(wheel: Path) -> None:
    for name, data in contents(wheel).items():
        folder, _, file = name.rpartition("/")
        path = folder_of(folder.replace("/", ".")) / file
        assert data == path.read_bytes(), name


@needs_setuptools
def test_wheel_made_from_the_sdist_is_the_same(source: Path, wheel: Path, tmp_path: Path) -> None:
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    run(sys.executable, "-c", code, cwd=source)
    (sdist,) = tmp_path.glob("lowp-*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / sdist.name.removesuffix(".tar.gz")
    assert not list(unpacked.glob("src/lowp/formats"))  # the rooms are there once, where they are in the checkout
    (tmp_path / "again").mkdir()
    assert contents(build_wheel(unpacked, tmp_path / "again")) == contents(wheel)


@needs_setuptools
def test_a_deleted_module_does_not_come_back(source: Path, wheel: Path) -> None:
    assert not (ROOT / "build" / "lib").exists(), "a stale build/lib puts deleted modules into the next wheel"
    assert "lowp/py.typed" in contents(wheel)


@needs_setuptools
def test_installed_wheel_works_far_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    options = ("--quiet", "--no-deps", "--no-compile", "--target", target)
    run(sys.executable, "-m", "pip", "install", *options, wheel, cwd=tmp_path)
    assert {p.name for p in target.iterdir() if not p.name.endswith(".dist-info")} - {"bin", "Scripts"} == {"lowp"}
    code = (
        "import importlib, pathlib, lowp\n"
        f"for room in {ROOMS}: importlib.import_module(room)\n"
        "assert lowp.quantize([1.05], 'float8_e4m3fn') is not None\n"
        "assert lowp.formats.names()\n"
        "print(pathlib.Path(lowp.__file__).parent, pathlib.Path(lowp.formats.__file__).parent)"
    )
    shown = run(sys.executable, "-P", "-c", code, cwd=tmp_path, path=str(target)).split()
    assert [Path(p) for p in shown] == [target / "lowp", target / "lowp" / "formats"]


@needs_setuptools
def test_wheel_declares_the_command_and_the_licence(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    (metadata,) = tmp_path.glob("*.dist-info")
    installed = Distribution.at(metadata)
    assert {e.name: e.value for e in installed.entry_points} == {"lowp": "lowp.cli:main"}
    assert installed.metadata["License-Expression"] == "MIT"
    assert (metadata / "licenses" / "LICENSE").is_file()


def test_an_editable_install_is_this_checkout() -> None:
    if importlib.util.find_spec("lowp") is None or not _editable_folder():
        pytest.skip("lowp is not installed in editable mode here")
    code = "import lowp, lowp.formats; print(lowp.__file__); print(lowp.formats.__file__)"
    door, room = run(sys.executable, "-P", "-c", code, cwd=ROOT.parent).splitlines()
    assert Path(door) == ROOT / "src" / "lowp" / "__init__.py"
    assert Path(room).resolve() == ROOT / "formats" / "__init__.py"
    assert _editable_folder() == ROOT


def _editable_folder() -> Path | None:
    """Return the folder that an editable install of lowp points to."""
    import json
    from importlib.metadata import PackageNotFoundError

    try:
        text = distribution("lowp").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    origin = json.loads(text) if text else {}
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(url2pathname(urlparse(origin["url"]).path)).resolve()


def test_every_extra_is_known_and_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(line.split("==") for line in _lines("constraints.txt"))
    wanted = [*project["dependencies"], *(r for name, extra in project["optional-dependencies"].items() for r in extra)]
    names = {r.split(">")[0].split("[")[0].replace("_", "-").lower() for r in wanted}
    assert names - pins.keys() <= {"lowp", "jax"}  # jax is not part of `all`
    assert pins["torch"] == "2.13.0"


def _lines(file: str) -> list[str]:
    return [line for line in (ROOT / file).read_text().splitlines() if line and not line.startswith("#")]
