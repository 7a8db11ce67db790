"""Files as they are written and read: whole, named when they cannot be used."""
