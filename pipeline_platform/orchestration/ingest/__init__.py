"""The ingest assets of every declared stream."""
