"""PostgreSQL: tables, the ledger, loads, dead letters, queries and migrations."""
