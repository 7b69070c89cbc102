"""The clients: `Client` blocks, `AsyncClient` awaits; all else is the same text."""
