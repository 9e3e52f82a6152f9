"""Estimates of the computation from the size of the model."""

from __future__ import annotations


def inference_flops(parameters: float, tokens: int) -> float:
    """Return the estimated floating-point operations of a forward pass: two per parameter and token.

    The estimate excludes attention, which is not negligible for long contexts.

    Args:
        parameters: Number of parameters that are active for one token, which excludes inactive experts.
        tokens: Number of input and output tokens.

    Source: Kaplan et al. 2020, "Scaling Laws for Neural Language Models" (arXiv:2001.08361), section 2.1.

    Example:
        >>> inference_flops(135e6, 1000)
        270000000000.0
    """
    return 2.0 * parameters * tokens
