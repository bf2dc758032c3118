"""The rooms that Ray works in: the connection, units of work, metrics."""
