"""Who is connecting: parameters and tokens are checked, a device is found, and a channel gets its socket."""
