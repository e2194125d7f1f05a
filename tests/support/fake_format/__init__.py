"""A format for tests; it has no runtime behind it."""
