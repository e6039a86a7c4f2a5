"""A job: a TOML file read, its model and data loaded, its results written."""
