"""What other products need of a distribution node, one module each."""
