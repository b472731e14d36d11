"""What a user's model is to the processes of a job: the contract of `build(task)`."""
