"""One module a launcher: what starts the processes of a job, and watches them."""
