"""Faults planted one by one in sound data sets of 100 clips: what the check says of each, and what training does."""
