"""The input of a model: datasets in shards, files and their indexes, counts of batches."""
