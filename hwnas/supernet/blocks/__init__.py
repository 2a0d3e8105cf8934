"""What networks are made of: one file a block, with its spec, its plain and its elastic form."""
