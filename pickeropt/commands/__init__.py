"""The commands: a file a verb, with its options and one call."""
