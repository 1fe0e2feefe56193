"""PostgreSQL: tables, the batch ledger (`assets`), loads, dead letters, queries and migrations."""
