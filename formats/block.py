"""Block formats: elements that share a scale."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lowp._errors import FormatError, unknown_name
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import Format, ScalarFormat, check_flag

#: Scale recipes: how the scale of a block follows from its elements. Implemented in `lowp.rounding.recipes`.
SCALE_RECIPES = {
    "floor": "2^(floor(log2 amax) - emax): the OCP MX 1.0 rule; large elements may clip",
    "ceil": "2^(ceil(log2 amax) - emax), as torchao CEIL",
    "even": "amax rounded to the element's precision (half up), then floor, as torchao EVEN",
    "rceil": "amax / max rounded up in the scale format, as cuBLAS and TransformerEngine MXFP8; never clips",
    "round": "amax / max of the element (posits, takums: end of their most precise range), to nearest, ties to even",
    "absmean": "mean magnitude (summed in float64) rounded to nearest in the scale format, as BitNet b1.58, XNOR-Net",
    "nvfp4_te": "NVFP4 as TransformerEngine computes it in float32, tensor scale included",
    "nvfp4_torchao": "NVFP4 as torchao computes it in float32, block scale at least 2^-6; all-zero tensors become NaN",
    "nvfp4_modelopt": "NVFP4 as TensorRT Model Optimizer computes it in float32, zero scales become 1; "
    "all-zero tensors become NaN",
    "mxfp4_modelopt": "MXFP4 as TensorRT Model Optimizer: ceiling of a float32 logarithm, element ties toward zero",
    "fouroversix_6": "amax / max in float32 as fouroversix's static_6, with the tensor's scale; E8M0 scales round up",
    "fouroversix_4": "as fouroversix_6, but the largest magnitude becomes 4: fouroversix's static_4",
    "fouroversix_6_unbiased": "as fouroversix_6 with 17/16 of headroom, so that stochastic rounding never clips",
    "fouroversix_mse": "Four Over Six: the block's largest magnitude becomes 6 or 4, whichever has less squared error",
    "fouroversix_mae": "as fouroversix_mse, by the sum of absolute errors",
    "fouroversix_abs_max": "as fouroversix_mse, by the largest error",
    "fouroversix_mse_unbiased": "as fouroversix_mse with 17/16 of headroom",
    "mse": "the power of two of the least squared error: 1/2, 1 or 2 times that of floor, the smallest at a tie",
    "three_quarters": "floor, elements of 3/4 x, tensor scale 4/3: never clips, for stochastic rounding of MXFP4",
    "quest": "0.48708 times the standard deviation, the best for normal data: QuEST, Quartet; powers of two round down",
}
#: What a NaN or an infinity does to its block.
NONFINITE_POLICIES = {
    "nan_block": "the whole block becomes NaN (the scale is NaN); recipes of vendors do as their system does",
    "element": "the scale ignores it; the element alone follows the rounding's overflow mode",
    "error": "RangeError",
}
#: Recipes that quantize a block in two ways and keep the better one.
ADAPTIVE_RECIPES = ("fouroversix_mse", "fouroversix_mae", "fouroversix_abs_max", "fouroversix_mse_unbiased")
E8M0 = Float(8, 0, bias=127, signed=False, subnormals=False, specials="fn", zero=False)
FLOAT32 = Float(8, 23)
_E4M3FN = Float(4, 3, specials="fn")


@dataclass(frozen=True)
class Block(Format):
    """A block format: `value = element * scale * tensor_scale` (or `(element - zero_point) * scale`).

    Args:
        element: Scalar format of the elements.
        size: Elements per block along the axis; `(rows, columns)` for two-dimensional tiles; "row" for one scale per
            whole axis; "tensor" for one scale in all. An axis that the size does not divide ends in a shorter block.
        scale: Format of the scales; its values must be able to be positive.
        tensor_scale: Float format of a second scale shared by the tensor, which makes its largest magnitude the largest
            that elements and scales reach; or None.
        zero_point: Whether blocks carry an offset in element units (asymmetric quantization); needs `Integer` elements.
        recipe: Name of the rule that picks the scale; default "floor" for E8M0 scales, "nvfp4_te" for the parts of
            NVFP4, else "round".
        nonfinite: What NaN and infinity do to their block: "nan_block", "element" or "error".

    Raises:
        FormatError: A part is not a scalar format, the size is not positive, or the parts do not fit together.

    Example:
        >>> Block("float4_e2m1fn", size=16, scale="float8_e4m3fn", tensor_scale="float32").bits_per_value
        4.5
    """

    element: ScalarFormat
    size: int | tuple[int, int] | str = 32
    scale: ScalarFormat = E8M0
    tensor_scale: ScalarFormat | None = None
    zero_point: bool = False
    recipe: str = ""
    nonfinite: str = "nan_block"

    kind = "block"

    def __post_init__(self) -> None:
        for field in ("element", "scale", "tensor_scale"):
            object.__setattr__(self, field, _scalar(field, getattr(self, field)))
        object.__setattr__(self, "size", _checked_size(self.size))
        check_flag("zero_point", self.zero_point)
        if not self.recipe:
            object.__setattr__(self, "recipe", self._default_recipe())
        if self.recipe not in SCALE_RECIPES:
            raise FormatError(unknown_name("recipe", self.recipe, SCALE_RECIPES))
        if self.nonfinite not in NONFINITE_POLICIES:
            raise FormatError(unknown_name("nonfinite", self.nonfinite, NONFINITE_POLICIES))
        self._check_parts()

    def _default_recipe(self) -> str:
        """The standard's rule for its formats: OCP's for E8M0 scales, NVIDIA's for NVFP4."""
        if self.scale == E8M0:
            return "floor"
        parts = (self.element, self.scale, self.tensor_scale)
        nvfp4 = (Float(2, 1, bias=1, specials="finite"), Float(4, 3, specials="fn"), FLOAT32)
        return "nvfp4_te" if parts == nvfp4 and self.size in (16, (16, 16), (1, 16)) else "round"

    def _check_parts(self) -> None:
        if self.scale.max <= 0:
            raise FormatError(f"scale={self.scale.name!r} has no positive value.")
        for part in (self.element, self.scale):
            if isinstance(part, Fixed) and part.bits > 53:
                raise FormatError(f"{part.name!r} is wider than float64's 53 bits, in which blocks are computed.")
        if self.zero_point and not isinstance(self.element, Integer):
            raise FormatError(f"zero_point=True needs Integer elements, not {self.element.name!r}.")
        two_level = self.recipe in ("floor", "ceil", "even", "rceil", "round") or self.recipe.startswith(
            ("nvfp4", "fouroversix", "three_quarters")
        )
        if self.tensor_scale is not None and not two_level:
            raise FormatError(f"recipe={self.recipe!r} has no tensor scale; leave tensor_scale out.")
        if self.tensor_scale is not None and (self.zero_point or not isinstance(self.tensor_scale, Float)):
            raise FormatError(f"tensor_scale={self.tensor_scale.name!r} needs a float format and no zero point.")
        if self.recipe in ("floor", "ceil", "even", "mse") and not _is_power_of_two_scale(self.scale):
            raise FormatError(
                f"recipe={self.recipe!r} makes powers of two, scale={self.scale.name!r} holds others too; "
                "use recipe 'round' or 'rceil', or scale 'float8_e8m0fnu'."
            )
        if self.recipe.startswith("nvfp4") and self.size not in (16, (16, 16), (1, 16)):
            raise FormatError(f"recipe={self.recipe!r} is defined for blocks of 16 (or 16x16), not size={self.size!r}.")
        self._check_paper_recipes()

    def _check_paper_recipes(self) -> None:
        """What the rules of Four Over Six and of the MXFP4 training papers are defined for."""
        if self.recipe in ADAPTIVE_RECIPES and self.scale != _E4M3FN:
            raise FormatError(f"recipe={self.recipe!r} needs scale 'float8_e4m3fn', not {self.scale.name!r}.")
        if self.recipe.startswith("fouroversix") and self.scale == E8M0 and self.tensor_scale is not None:
            raise FormatError(f"recipe={self.recipe!r} has no tensor scale beside E8M0 scales; leave tensor_scale out.")
        if self.recipe == "three_quarters" and (self.scale, self.tensor_scale) != (E8M0, FLOAT32):
            raise FormatError(
                "recipe='three_quarters' needs scale 'float8_e8m0fnu' and tensor_scale 'float32', which holds 4/3."
            )
        if self.zero_point and self.recipe.startswith(("fouroversix", "mse", "three_quarters", "quest")):
            raise FormatError(f"recipe={self.recipe!r} has no zero point; use recipe 'round'.")

    @property
    def bits(self) -> int:
        """Storage bits of one element's code, scales not counted."""
        return self.element.bits

    @property
    def block_elements(self) -> int | None:
        """Elements that share a scale, or None where that depends on the array's shape."""
        if isinstance(self.size, tuple):
            return math.prod(self.size)
        return self.size if isinstance(self.size, int) else None

    @property
    def block_bits(self) -> int:
        """Storage bits of one block besides its elements: the scale and, if any, the zero point."""
        return self.scale.bits + (self.element.bits if self.zero_point else 0)

    @property
    def bits_per_value(self) -> float:
        """Storage bits per value with scales; for scales per row or tensor the limit of long rows."""
        shared = self.block_bits / self.block_elements if self.block_elements else 0.0
        return self.element.bits + shared

    @property
    def max(self) -> float:
        """Largest finite value, exact."""
        return self._end(self.element.max)

    @property
    def min(self) -> float:
        """Most negative finite value, exact."""
        return self._end(self.element.min)

    @property
    def smallest_normal(self) -> float:
        """Smallest positive value of full precision: the element's times the smallest scales."""
        return self.element.smallest_normal * self._smallest_scale()

    @property
    def smallest_subnormal(self) -> float:
        """Smallest positive value: the element's times the smallest scales."""
        return self.element.smallest_subnormal * self._smallest_scale()

    @property
    def eps(self) -> float:
        """Distance from 1.0 to the next larger element value; what the precision is inside a block."""
        return self.element.eps

    def _smallest_scale(self) -> float:
        return self.scale.smallest_subnormal * (self.tensor_scale.smallest_subnormal if self.tensor_scale else 1.0)

    def _end(self, element: float) -> float:
        """The end of the range that an extreme element code leads to, under the largest scales."""
        sign = 1.0 if element == self.element.max else -1.0
        if self.zero_point:
            element = sign * (self.element.max - self.element.min)
        return element * self.scale.max * (self.tensor_scale.max if self.tensor_scale else 1.0)

    def with_recipe(self, recipe: str) -> Block:
        """Return the same format with another scale recipe."""
        return replace(self, recipe=recipe)

    def generated_name(self) -> str:
        size = "x".join(map(str, self.size)) if isinstance(self.size, tuple) else str(self.size)
        parts = [self.element.name, size, self.scale.name]
        parts += [f"tensor={self.tensor_scale.name}"] if self.tensor_scale else []
        parts += ["asym"] if self.zero_point else []
        parts += [f"recipe={self.recipe}"] if self.recipe != self._default_recipe() else []
        parts += [f"nonfinite={self.nonfinite}"] if self.nonfinite != "nan_block" else []
        return f"block[{','.join(parts)}]"


def _is_power_of_two_scale(scale: ScalarFormat) -> bool:
    return isinstance(scale, Float) and scale.mantissa_bits == 0


def _scalar(field: str, value: object) -> ScalarFormat | None:
    if value is None and field == "tensor_scale":
        return None
    if isinstance(value, str):
        from lowp.formats.parse import parse  # parse builds blocks itself, so the import waits until a name comes

        value = parse(value)
    if isinstance(value, Format) and not isinstance(value, ScalarFormat):
        raise FormatError(f"{field}={value.name!r} is a block format; elements and scales must be scalar formats.")
    if not isinstance(value, ScalarFormat):
        raise FormatError(f"{field}={value!r} is not a scalar format or the name of one.")
    return value


def _checked_size(size: object) -> int | tuple[int, int] | str:
    if isinstance(size, str):
        if size not in ("row", "tensor"):
            raise FormatError(
                f"size={size!r} is not known; allowed: a positive integer, (rows, columns), 'row', 'tensor'."
            )
        return size
    pair = size if isinstance(size, tuple | list) else (size,)
    if not 1 <= len(pair) <= 2 or any(isinstance(n, bool) or not hasattr(n, "__index__") or n < 1 for n in pair):
        raise FormatError(f"size={size!r} must be a positive integer, (rows, columns), 'row' or 'tensor'.")
    numbers = [int(n) for n in pair]
    return numbers[0] if not isinstance(size, tuple | list) else (numbers[0], numbers[-1])
