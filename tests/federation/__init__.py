"""Whole federations in one thread: the production loops over the in-memory link, clock and faults from a seed."""
