"""Sites of an archive answered: partitions, what workers do with them, and what becomes of what breaks."""
