"""Failed runs that did not tell of themselves: found in Dagster's history and written to `assets`."""
