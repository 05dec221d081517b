"""Chains of rounded steps: arithmetic, accumulators and whole programs in a format."""

__all__: list[str] = []
