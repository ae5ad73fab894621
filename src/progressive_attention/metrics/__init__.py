"""Pure metrics, one value per example; averaging happens once, in evaluation."""
