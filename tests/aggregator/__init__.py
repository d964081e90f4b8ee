"""The aggregator without a broker: its rules, its journal, its loop."""
