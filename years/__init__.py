"""The years of the challenge, as data: a YAML file each."""
