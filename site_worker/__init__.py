"""The worker at a hospital: trains when it can, keeps what it computed in an outbox, publishes it when the link is up."""
