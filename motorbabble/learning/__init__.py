"""How a model changes: replay, the learner, its schedule and its quality gate."""
