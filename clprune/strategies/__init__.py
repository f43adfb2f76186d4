"""Ways to spend a budget: one file a strategy."""
