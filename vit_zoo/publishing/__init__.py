"""From a model to the folder of a repository that every client loads, and the card that says so."""
