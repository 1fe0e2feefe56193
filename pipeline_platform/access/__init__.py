"""Who may do what, and what both web servers share about it."""
