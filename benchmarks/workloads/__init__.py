"""Workloads: the shapes of the variables, the input, and the loss, for every framework."""
