"""The log directory of a job, read and written in place or staged through this machine."""
