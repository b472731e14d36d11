"""Changes to the number of workers and parameter servers while training."""
