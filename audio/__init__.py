"""From wav files to numbers: clips of a dataset, their features, and the cache of these."""
