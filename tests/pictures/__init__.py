"""Pictures for docs/operations.md, taken of a real federation: `python -m tests.pictures`."""
