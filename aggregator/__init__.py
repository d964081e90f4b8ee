"""The aggregator: admits, journals, merges by staleness and publishes. It needs no torch."""
