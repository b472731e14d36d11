"""Whole jobs: their processes, launched and supervised."""
