"""How a value is stored: its payload, flags, envelope and signature, and how old it may be."""
