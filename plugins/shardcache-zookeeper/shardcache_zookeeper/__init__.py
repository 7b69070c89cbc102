"""Locks of shardcache that a ZooKeeper ensemble keeps.

Install it, and pass `locks="zookeeper://h1:2181,h2:2181,h3:2181/shop"` to a client. `client.lock` and
`@cached(lock=True)` then take their locks there, and `lease.fence` is a number that a database can check.
"""
