"""Files that appear whole or not at all, and records of what made them."""
