"""Alerts on their way out: routes, messages and webhooks."""
