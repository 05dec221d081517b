"""Bit-exact emulation of low-precision number formats."""

from __future__ import annotations

from lowp import formats as formats
from lowp import rounding as rounding
from lowp._errors import ArgumentError as ArgumentError
from lowp._errors import ArgumentTypeError as ArgumentTypeError
from lowp._errors import Error as Error
from lowp._errors import FileError as FileError
from lowp._errors import FormatError as FormatError
from lowp._errors import PrecisionWarning as PrecisionWarning
from lowp._errors import RangeError as RangeError
from lowp.formats import Block as Block
from lowp.formats import Codebook as Codebook
from lowp.formats import Fixed as Fixed
from lowp.formats import Float as Float
from lowp.formats import Format as Format
from lowp.formats import Integer as Integer
from lowp.formats import parse as parse
from lowp.formats import values as values
from lowp.rounding import Encoded as Encoded
from lowp.rounding import decode as decode
from lowp.rounding import encode as encode
from lowp.rounding import exact as exact
from lowp.rounding import quantize as quantize

__version__ = "0.1.0"
