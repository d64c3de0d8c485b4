"""The audit of all stores, and what repairs them."""
