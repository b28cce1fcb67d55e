"""What ``make bench`` compares: one module per library that generates tokens."""
