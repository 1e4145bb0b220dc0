"""Particle pickers from the literature, DeepEM, DeepPicker and YOLO: sources of picks, and baselines."""
