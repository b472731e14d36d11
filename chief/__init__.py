"""The chief process: owns membership, initialization, checkpoints, summaries and the job's end."""
