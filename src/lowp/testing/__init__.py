"""Tools for testing number formats: comparisons that look at bits."""

from lowp.testing.asserts import assert_bits_equal

__all__ = ["assert_bits_equal"]
