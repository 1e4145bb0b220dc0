"""What a DeepPicker is trained and picks with."""

from dataclasses import asdict, dataclass

from pickeropt.errors import PickeroptError


@dataclass(frozen=True)
class DeepPickerSettings:
    """The paper's values where it has one (sections 4.3 and 4.5), else ours, marked so.

    particles : at most so many particles are learnt from, each species the same share
    box_diameters : side of the window in particle diameters; the paper says slightly larger than 1
    apart : windows; no negative is closer to a particle
    negatives : for each particle, of which an epoch sees one, always others; the paper says as many as
        particles, not whether always the same
    dropout : of the first fully connected layer; learning_rate : of stochastic gradient descent
    momentum, batch_size : ours
    turns : train on patches in all eight orientations; ours, the paper does not mention it
    epochs : at most; patience : epochs without a smaller validation error before it stops; ours
    large_domain : connected domains of the score map more than so many times the average are ice;
        0 leaves the cleaning step out
    peak_window : windows; picks are at least half of it apart
    extreme : standard deviations, both of a pixel from the mean and of a pick's number of such pixels
        from the mean number; 0 leaves this filter out
    calibrated : scores are the share of such candidates that are particles on the micrographs held back;
        else the network's own, as in the paper
    """

    particles: int = 10_000
    box_diameters: float = 1.4
    apart: float = 0.6
    negatives: int = 10
    dropout: float = 0.5
    learning_rate: float = 0.01
    momentum: float = 0.9
    batch_size: int = 32
    turns: bool = True
    epochs: int = 60
    patience: int = 8
    large_domain: float = 4.0
    peak_window: float = 0.8
    extreme: float = 3.0
    calibrated: bool = True

    def __post_init__(self) -> None:
        """Raises PickeroptError for a value that means nothing."""
        may_be_0 = ("dropout", "momentum", "large_domain", "extreme", "apart")
        for name, value in asdict(self).items():
            if not value >= 0 or not (value or name in may_be_0 or name in ("turns", "calibrated")):
                raise PickeroptError(f"{name} of DeepPicker is {value:g}; give a number above 0")
        for name in ("dropout", "momentum"):
            if not asdict(self)[name] < 1:
                raise PickeroptError(f"{name} of DeepPicker is {asdict(self)[name]:g}; give less than 1")
