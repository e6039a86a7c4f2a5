"""Many masks on many machines."""
