"""Chaos runs: random trees, options, faults and kills from a seed, and the invariants that must hold afterwards."""
