"""pickeropt: prune the picks of any cryo-EM particle picker with a few-shot classifier."""

__version__ = "0.1.0"
