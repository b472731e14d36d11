"""Tensors that cross between workers and parameter servers, and where parameters are stored."""
