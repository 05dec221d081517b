"""Predictions of published numbers about ASIC datapaths."""

from lowp.hw_models import (
    validated_asic_elements,
    validated_asic_energies,
    validated_asic_formats,
    validated_asic_units,
)

__all__ = [
    "validated_asic_elements",
    "validated_asic_energies",
    "validated_asic_formats",
    "validated_asic_units",
]
