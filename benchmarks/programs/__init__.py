"""The measured systems: each module's `run(task)` is one process of one."""
