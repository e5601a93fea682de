"""`wardgate admin`: the portal's REST API from the command line."""
