"""What one does with a model or an artifact."""
