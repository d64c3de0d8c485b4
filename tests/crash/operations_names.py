"""The operations of `operations`, which only the warm process can import."""

OPERATION_NAMES = ("commit", "fork", "update", "outbox", "repair", "gc")

PREPARED = (*OPERATION_NAMES, "many")
"""`many` is for the durability order and for damaged contents."""
