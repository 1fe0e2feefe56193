"""The durable ingest queue on Redis Streams."""
