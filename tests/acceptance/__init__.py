"""The promises of docs/reliability.md, each held by real processes over a real RabbitMQ."""
