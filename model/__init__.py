"""The user's model: the contract of `build(task)` with the processes of a job."""
