"""The training loops: what each does in a step, and one way to run them all."""
