"""Flat storage: several variables or tables of one parameter server stored as one."""
