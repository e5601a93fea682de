"""Several portals as one: a bus between them, who is connected to which, and handles on devices of other portals."""
