"""Every world that can be looked at and acted in. No torch here: a robot host has none."""
