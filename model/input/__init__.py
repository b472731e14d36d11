"""The input of a model: datasets in shards, files and their indexes, and counts of what was applied."""
