"""Sans-IO state machines, one protocol each. Time and randomness are arguments."""
