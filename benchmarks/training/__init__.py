"""A small GPT trained from scratch on the Python documentation, once per recipe and seed."""
