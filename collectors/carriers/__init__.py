"""What carries a scope from one service, or thread, to the next: requests, messages, and those who receive them."""
