"""The worker process: builds its graph, computes gradients, pulls and pushes parameters."""
