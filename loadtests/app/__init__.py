"""An application whose pages are cached, and the functions that start and stop it."""
