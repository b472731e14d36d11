"""Side-by-side measurements of parameter-server training: `python -m paramserve.benchmarks`."""
