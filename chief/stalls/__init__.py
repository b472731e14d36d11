"""Detection, explanation and resolution of stalls."""
