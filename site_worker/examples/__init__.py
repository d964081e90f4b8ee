"""Three tasks as a hospital would write them, on generated data: scans, vital signs, notes. See docs/tasks.md."""
