"""What can be changed, one module for each noun: every rule is checked here, so all doors share it.

Each function takes a unit of work, and reaches nothing but the unit's account. Fields arrive as people gave them
(`fields`, a mapping) and are checked; `InvalidInput`, `NotFound`, `Forbidden` and `Conflict` say what is wrong.
"""
