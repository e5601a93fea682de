"""The portal: accounts, policies, authorizations, and the websockets of devices."""
