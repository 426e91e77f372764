"""Chaos: random trees, options, faults and kills from a seed, and the invariants that hold whatever happens."""
