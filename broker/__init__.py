"""What both sides agree on, and the road between them: names, messages, codecs, keys, and the link over RabbitMQ."""
