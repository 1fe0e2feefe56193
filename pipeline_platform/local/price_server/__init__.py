"""A server of made-up prices with the real APIs' shapes and limits: for `up --demo`, and for tests."""
