"""Verdicts on recordings, and trained systems in other runtimes."""
