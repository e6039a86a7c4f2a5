"""The exact solver: masks, costs and predictions as rows of a mixed-integer program."""
