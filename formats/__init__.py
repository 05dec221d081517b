"""What a code means: format descriptions, names, and tables of values."""

from lowp.formats.block import Block
from lowp.formats.codebook import Codebook
from lowp.formats.describe import describe
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.logarithmic import LNS
from lowp.formats.packed import Field, Packed
from lowp.formats.parse import parse
from lowp.formats.posit import Posit
from lowp.formats.registry import names
from lowp.formats.spec import Format, ScalarFormat
from lowp.formats.tables import values
from lowp.formats.takum import Takum

__all__ = [
    "LNS",
    "Block",
    "Codebook",
    "Field",
    "Fixed",
    "Float",
    "Format",
    "Integer",
    "Packed",
    "Posit",
    "ScalarFormat",
    "Takum",
    "describe",
    "names",
    "parse",
    "values",
]
