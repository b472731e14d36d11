"""Rows of embedding tables: equal ids and their gradients cross once."""
