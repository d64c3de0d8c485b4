"""The ledger's versions: how each one is made from the one before."""
