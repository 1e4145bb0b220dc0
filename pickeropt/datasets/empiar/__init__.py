"""Real micrographs from EMPIAR with particle labels from CryoPPP, for a user with a network."""
