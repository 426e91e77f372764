"""Mutation testing: change random places of the code and see whether tests fail."""
