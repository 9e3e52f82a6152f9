"""What can be said of the computation from facts about the model."""

from __future__ import annotations


def inference_flops(parameters: float, tokens: int) -> float:
    """Floating-point operations of a forward pass over that many tokens: two for each parameter and token.

    A rule of thumb: attention over long contexts comes on top, and of a mixture of experts only the active parameters
    count.

    Args:
        parameters: Parameters that take part in the computation of a token.
        tokens: Tokens, input and output.

    Source: Kaplan et al. 2020, "Scaling Laws for Neural Language Models" (arXiv:2001.08361), section 2.1.

    Example:
        >>> inference_flops(135e6, 1000)
        270000000000.0
    """
    return 2.0 * parameters * tokens
