"""The pickers of the literature, DeepEM, DeepPicker and YOLO, as upstream sources and baselines."""
