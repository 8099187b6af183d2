"""Workshop: shapes of rows that trainers read. Each public file ends in `FORMAT = Format(...)`."""
