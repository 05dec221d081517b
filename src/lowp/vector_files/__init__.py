"""Test vectors for other implementations: made by the exact oracle, written to files, and checked against programs.

`vectors` makes them; behind it `semantics` says what is computed and `cases` on which operands. `read_vectors` reads
the files that `files` writes, docs/vectors.md describes them; `verify_vectors` and `compare` judge answers.
"""

from lowp.vector_files.checking import Mismatch, ProgramError, Verification, compare, verify_vectors
from lowp.vector_files.collection import Vectors, vectors
from lowp.vector_files.files import read_vectors

__all__ = [
    "Mismatch",
    "ProgramError",
    "Vectors",
    "Verification",
    "compare",
    "read_vectors",
    "vectors",
    "verify_vectors",
]
