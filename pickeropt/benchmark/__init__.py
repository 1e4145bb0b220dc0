"""The paper's tables on any data sets: few shots, many draws, with confidence intervals."""
