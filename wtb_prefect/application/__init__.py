"""Use cases, one a file, named by their verbs."""
