"""Faults planted one by one in sound data sets of 100 clips: what `utils/check_data.py` says, and what training does."""
