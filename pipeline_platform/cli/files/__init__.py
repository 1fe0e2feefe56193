"""Files of events as rows of NDJSON: what each format, encoding and compression means, and what is refused."""
