"""What the cache does, step by step: one text for the blocking and the asyncio client."""
