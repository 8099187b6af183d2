"""A run on disk: the recipe, the run folder, the journal of model calls, the budget, progress."""
