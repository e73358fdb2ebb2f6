"""The store's schema, as revisions that alembic applies."""
