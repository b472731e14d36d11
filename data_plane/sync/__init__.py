"""Synchronous steps: tokens, gradient accumulators, and the graph around them."""
