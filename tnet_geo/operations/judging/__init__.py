"""Ways to look beside each other: how often they are right, and what that costs."""
