"""What the nodes of a cluster share, and how they tell each other: Redis, or stand-ins inside this process."""
