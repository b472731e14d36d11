"""The launchers, one module each: they start the processes of a job, and watch them."""
