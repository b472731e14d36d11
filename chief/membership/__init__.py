"""The tasks of the job: registration, places, leases, and preemption notices."""
