"""DeepEM: windows scanned by a convolutional network of eight layers (Zhu et al. 2017)."""
