"""tus 1.0.0 (https://tus.io/protocols/resumable-upload): uploads that survive broken connections.

Core, creation, creation-with-upload, creation-defer-length, checksum, expiration, termination and
concatenation, over any `Backend` and a store of upload sessions that gateways share.
"""
