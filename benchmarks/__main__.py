"""`python -m paramserve.benchmarks`."""

from .app import main

if __name__ == "__main__":
    main()
