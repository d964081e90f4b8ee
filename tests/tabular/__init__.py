"""Tests of tables: declaration, reading, features, tasks, drafting."""
