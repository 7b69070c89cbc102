"""What is played in each row, and what is asked of it."""
