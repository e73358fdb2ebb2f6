"""The HTTP API: thin handlers over the domain services, and the table of routes they are documented from."""
