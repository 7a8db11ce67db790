"""Outlier scores, what they remember, thresholds and verdicts."""
