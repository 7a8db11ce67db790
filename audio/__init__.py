"""From wav files to the numbers that a model gets."""
