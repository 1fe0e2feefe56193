"""Who may do what, and what both web servers share: roles, sessions, the gate in front, the login page."""
