"""One module a noun: what its pages read, show and change."""
