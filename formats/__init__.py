"""What a code means: format descriptions, names, and tables of values."""

from lowp.formats.block import Block
from lowp.formats.codebook import Codebook
from lowp.formats.describe import describe
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.parse import parse
from lowp.formats.registry import names
from lowp.formats.spec import Format, ScalarFormat
from lowp.formats.tables import values

__all__ = [
    "Block",
    "Codebook",
    "Fixed",
    "Float",
    "Format",
    "Integer",
    "ScalarFormat",
    "describe",
    "names",
    "parse",
    "values",
]
