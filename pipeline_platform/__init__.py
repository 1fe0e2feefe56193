"""POST events; see them validated, aggregated and loaded exactly once into PostgreSQL through Dagster runs."""

__version__ = "0.1.0"
