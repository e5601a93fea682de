"""The pages: server-made HTML over the same services as the REST API."""
