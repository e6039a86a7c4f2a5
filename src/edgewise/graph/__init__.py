"""What a network is: vertices and edges, units, masks, what remains under one and its cost."""
