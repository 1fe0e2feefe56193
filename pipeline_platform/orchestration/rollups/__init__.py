"""Hours and days of each stream: partitioned assets over its minutes, corrected when late events come."""
