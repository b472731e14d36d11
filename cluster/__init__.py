"""What a cluster is and how its processes come up; knows nothing about training steps."""
