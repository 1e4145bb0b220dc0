"""Named imaging recipes: `PRESETS`.

default : counted electrons, at doses, defoci and low-passes as wide as published data sets are
cryolo : noise as in the simulations of the crYOLO paper (Wagner et al., Commun. Biol. 2, 218
    (2019), Methods): Gaussian noise of 88 k before the CTF (2.5 µm, 300 kV, amplitude contrast
    0.1, B 200 Å²) and of 51 k after it; a micrograph has one of its five ratios
deepem : the ratios of Fig. 6 of DeepEM (Zhu et al., BMC Bioinformatics 18, 348 (2017)), which
    does not say what its noise was; here the recipe of crYOLO at DeepEM's ratios

The papers drew particles only; ours keep the junk, so that there are all 36 classes. What
the ratio means exactly is said in `exposure`.
"""

from dataclasses import replace

from pickeropt.datasets.simulate.simulation_config import SimulationConfig

CRYOLO_SNR = {1: 1.25, 4: 0.093, 6: 0.041, 8: 0.023, 10: 0.014}
"""Signal-to-noise ratio of each noise level k of the crYOLO paper."""
DEEPEM_SNR = (0.01, 0.008, 0.005, 0.003, 0.002, 0.001)

_CRYOLO = SimulationConfig(
    preferred=(0.0, 0.0),
    defocus_um=(2.5, 2.5),
    astigmatism_um=(0.0, 0.0),
    voltage_kv=300.0,
    amplitude_contrast=0.1,
    b_factor=(200.0, 200.0),
    snr=tuple(CRYOLO_SNR.values()),
    filtered_probability=0.0,
)
PRESETS = {
    "default": SimulationConfig(),
    "cryolo": _CRYOLO,
    "deepem": replace(_CRYOLO, snr=DEEPEM_SNR),
}
