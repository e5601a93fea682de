"""Sans-IO decisions of the data plane: one module per question an upcall asks."""
