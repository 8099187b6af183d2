"""How a pair is judged: orders, principles, several judges, and the arithmetic of verdicts."""
