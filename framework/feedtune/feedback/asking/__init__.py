"""What is asked next, and where the questions come from."""
