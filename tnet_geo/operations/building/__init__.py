"""Archives built from a manifest: what is to be done, by whom, how long it takes, and doing it."""
