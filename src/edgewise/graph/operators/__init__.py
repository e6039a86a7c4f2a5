"""What must be known of an operator: how absence passes, what it counts, what it needs."""
