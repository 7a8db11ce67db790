"""What the model families share: a run and its jobs, resumable training, saved models."""
