"""Checkpoints on disk and in memory, and the initialization that restores them."""
