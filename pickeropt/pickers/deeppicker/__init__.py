"""DeepPicker: Wang et al., J. Struct. Biol. 195, 325 (2016)."""
