"""The HTTP edge: ingest, receipts, queries, health and metrics."""
