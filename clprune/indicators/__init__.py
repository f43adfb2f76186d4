"""Curves that tell how far the critical period is: one file an indicator."""
