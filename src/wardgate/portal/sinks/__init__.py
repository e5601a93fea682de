"""Where logs are sent: the destinations, and what brings events to them."""
