"""Publishing: repositories that every supported client loads, with their model cards, and pulling them."""
