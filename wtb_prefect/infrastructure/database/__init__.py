"""The ledger on SQLAlchemy Core, and its twin in memory."""
