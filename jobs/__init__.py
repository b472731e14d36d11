"""Whole jobs: the processes that they consist of, launched and looked after."""
