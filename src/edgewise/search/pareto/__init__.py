"""Several costs at once."""
