"""Golden bytes: what was once on the wire must be readable for ever."""
