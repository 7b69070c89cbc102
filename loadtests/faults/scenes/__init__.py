"""The scenes of the rows, and what is expected of each."""
