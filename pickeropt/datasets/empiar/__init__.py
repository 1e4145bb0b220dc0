"""Micrographs from EMPIAR with particle labels from CryoPPP, downloaded on request."""
