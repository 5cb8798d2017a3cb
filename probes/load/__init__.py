"""What is asked, when, and how much of it."""
