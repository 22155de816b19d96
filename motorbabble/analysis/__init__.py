"""Whether it has understood: the card, and the numbers behind it."""
