"""pickeropt as an External job of RELION."""
