"""`pipeline-platform ingest`: sends files to the gateway, remembers what was acknowledged, and goes on from there."""
