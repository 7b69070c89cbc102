"""An application whose pages are served from a cache, and what starts and stops it."""
