"""The database of a study, and who measures what."""
