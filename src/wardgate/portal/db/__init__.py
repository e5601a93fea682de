"""The portal's database: tables, the tenant scope, and the unit of work that records every change."""
