"""The named formats, one file a family; each has `ENTRIES`, and `read_name` where names follow a rule."""
