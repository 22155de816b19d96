"""What a mind can do with the networks: reconstruct, imagine, say what it got wrong."""
