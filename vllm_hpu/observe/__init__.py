"""What a user can see: plans before they are paid for, and what an engine counts."""
