"""The aggregator: admits updates, journals them exactly once, merges them by staleness, publishes versions. No torch."""
