"""The cluster and the start of its processes; independent of training steps."""
