"""Pure values and arithmetic: no clock, no sockets, no threads."""
