"""The submission package, and the official archives."""
