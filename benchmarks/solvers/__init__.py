"""Conjugate gradients and iterative refinement in low precision, with NumPy and with JAX."""
