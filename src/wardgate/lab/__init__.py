"""A small internet in network namespaces: NATs, latency, loss."""
