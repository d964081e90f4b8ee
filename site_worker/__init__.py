"""The worker at a hospital: trains when it can, keeps what it computed until a receipt has settled it."""
