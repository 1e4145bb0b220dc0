"""The tables of the paper on any data sets: few shots, many draws, confidence intervals."""
