"""A faster runtime for any Dagster project: pooled storage, a quick sensor loop, warm workers."""
