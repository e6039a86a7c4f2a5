"""What a mask loses: objectives, how masks are run, and the records of it."""
