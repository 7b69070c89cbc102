"""For authors of plugins: contracts that every backend and every strategy must keep.

The modules need pytest, which the extra `testing` brings: `pip install 'shardcache[testing]'`.
"""
