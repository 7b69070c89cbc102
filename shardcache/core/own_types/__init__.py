"""Values of callers' own types as built-in values, and back: through msgspec or Pydantic."""
