"""Fixtures that every test may use, and one check of the whole run."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("formats", "rounding", "emulation", "hw_models")

#: Reads one file of vectors by its name without the ending, such as "gfloat/ocp_e4m3".
Vectors = Callable[[str], Mapping[str, np.ndarray]]


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the checkout."""
    return ROOT


def vectors_folder() -> Path | None:
    """Return the folder of independent test vectors; a folder that LOWP_VECTORS names must exist."""
    named = os.environ.get("LOWP_VECTORS")
    folder = Path(named) if named else ROOT.parent / "shared" / "vectors"
    if named and not folder.is_dir():
        raise FileNotFoundError(f"LOWP_VECTORS={named!r} is not a folder.")
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def vectors() -> Vectors:
    """Load vectors made by independent programs; skip where this machine has none."""
    folder = vectors_folder()
    if folder is None:
        pytest.skip("no independent test vectors here: set LOWP_VECTORS to their folder")

    def load(name: str) -> Mapping[str, np.ndarray]:
        path = folder / f"{name}.npz"
        if not path.is_file():
            raise FileNotFoundError(f"{name!r} is not among the test vectors in {folder}.")
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)

    return load


@pytest.fixture(scope="session", autouse=True)
def no_room_is_imported_twice() -> Iterator[None]:
    """Fail the run if some test imported a room by its bare folder name, which makes second copies of its classes."""
    yield
    assert bare_rooms() == set()


def bare_rooms() -> set[str]:
    """Return the rooms that sys.modules holds under their bare names and that come from this checkout."""
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in ROOMS}
    return {name for name, file in files.items() if file and ROOT in Path(file).resolve().parents}
