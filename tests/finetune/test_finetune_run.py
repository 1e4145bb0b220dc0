"""Fine-tuning from end to end, on micrographs and on boxes, by both recipes."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_world import CONFIG, DIAMETER, PIXEL_SIZE, SHAPE, make_shots, noise_boxes

from pickeropt.errors import GeometryError, MicrographError, OutputError, PickeroptError, ShotsError
from pickeropt.finetune import finetuning as run
from pickeropt.finetune import recipes, shot_features
from pickeropt.finetune import recipes as trials
from pickeropt.finetune.finetuning import finetune
from pickeropt.finetune.shot_features import are_bright, check_shot_frame, locate
from pickeropt.io.micrographs import read_micrograph, write_mrc
from pickeropt.models.backbone import initial_head
from pickeropt.models.classifier import load_checkpoint
from pickeropt.models.fitting import SgdSchedule
from pickeropt.prune.scoring import load_scorer
from pickeropt.records import Micrograph
from pickeropt.shots import BoxShots, Shots


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Shots:
    return make_shots(tmp_path_factory.mktemp("mics"))


@pytest.fixture
def small_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default recipe on views of a quarter of the pixels."""
    monkeypatch.setattr(recipes, "VIEW_DIAMETERS", (31.0, 20.0))
    monkeypatch.setattr(recipes, "ORIENTATIONS", 2)


@pytest.fixture
def quick_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's recipe with two epochs."""
    monkeypatch.setattr(recipes, "SgdSchedule", lambda: SgdSchedule(epochs=2, batch_size=12))


@pytest.fixture
def no_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reads pixels or trains is a failure of the test."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("computed before everything was checked")

    for name in ("_fit_default", "_fit_paper", "save_checkpoint"):
        monkeypatch.setattr(run, name, fail)
    monkeypatch.setattr(shot_features, "read_micrograph", fail)


def test_the_default_recipe(shots: Shots, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    report = finetune(
        shots,
        replace(CONFIG, shots_per_class=12),
        tmp_path / "m.safetensors",
        on_progress=lambda *now: seen.append(now),
    )
    assert report.checkpoint == tmp_path / "m.safetensors"
    assert report.class_names == ("particle", "background", "carbon")
    assert report.validation_by == "micrograph"
    assert report.validation_splits == 5
    assert {n: report.train_shots[n] + report.validation_shots[n] for n in report.class_names} == dict.fromkeys(
        report.class_names, 12
    )
    assert report.accuracy is not None
    assert report.accuracy > 0.7  # chance is 1/3
    assert report.macro_f1 is not None
    assert set(report.per_class_f1) == set(report.class_names)
    assert 0 <= min(report.per_class_f1.values()) <= report.macro_f1 <= 1
    passes = len(recipes.VIEW_DIAMETERS) * recipes.ORIENTATIONS
    plural = "es" if passes > 1 else ""
    assert report.passes == f"{passes} pass{plural} a micrograph"
    assert report.seconds > 0
    assert report.warnings == ()
    assert [done for what, done, _ in seen if what == "looking at shots"][-1] == 36
    assert [now for now in seen if now[0] == "fitting the classifier"][-1][1:] == (6, 6)
    assert all(0 < done <= of for _, done, of in seen)
    loaded = load_checkpoint(report.checkpoint)
    said = loaded.provenance
    assert loaded.diameter_angstrom == DIAMETER
    assert said["settings"]["seed"] == 0
    assert said["settings"]["recipe"] == "default"
    assert said["shots"] == {"particle": 12, "background": 12, "carbon": 12}
    assert said["micrographs"] == 4
    assert said["held_out"]["accuracy"] == report.accuracy
    assert not list(tmp_path.glob("*partial*"))
    scorer = load_scorer(report.checkpoint, "cpu")
    assert scorer.digest == loaded.digest
    right: list[bool] = []
    for number, path in enumerate(shots.micrographs):
        here = np.flatnonzero(shots.micrograph_index == number)
        found = scorer.score(read_micrograph(path), shots.coordinates[here], PIXEL_SIZE)
        right += (found.argmax(1) == shots.labels[here]).tolist()
    assert len(right) == len(shots) > 36
    assert np.mean(right) > 0.8


@pytest.mark.parametrize("init", ["shipped", "none"])
def test_classes_of_the_user_and_the_opinion_of_the_pretraining(
    shots: Shots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init: str
) -> None:
    """Names that no pretraining knows; what was learnt leans on the shipped opinion, or on none."""
    monkeypatch.setattr(recipes, "VIEW_DIAMETERS", (31.0,))
    names = ("particle", "ice", "edge")
    report = finetune(replace(shots, class_names=names), replace(CONFIG, shots_per_class=8, init=init), tmp_path / "m")
    assert report.class_names == names
    assert set(report.per_class_f1) == set(names)
    classifier = load_checkpoint(tmp_path / "m").classifier
    source = initial_head(init)
    if source is None:
        assert (classifier.spec.parents, classifier.spec.prior_weight, classifier.source_prior) == ((), 0.0, None)
        return
    assert (classifier.spec.parents, classifier.spec.prior_weight) == (source.parents, recipes.PRIOR_WEIGHT)
    assert torch.equal(classifier.source_prior.linear.weight, source.weight)
    assert report.accuracy is not None
    assert report.accuracy > 0.6  # chance is 1/3
    found = load_scorer(tmp_path / "m", "cpu").score(
        read_micrograph(shots.micrographs[0]),
        shots.coordinates[shots.micrograph_index == 0],
        PIXEL_SIZE,
    )
    right = found.argmax(1) == shots.labels[shots.micrograph_index == 0]
    assert right.mean() > 0.7


@pytest.mark.usefixtures("small_views")
def test_the_same_seed_is_the_same_file_and_another_is_not(shots: Shots, tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        finetune(shots, replace(CONFIG, shots_per_class=4, seed=seed), tmp_path / name)
        digests.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]


def test_the_last_fit_is_on_all_shots_and_the_temperature_from_the_splits(tmp_path, monkeypatch) -> None:
    fits: list[int] = []
    heads: list[dict[str, torch.Tensor]] = []
    tried: list[tuple[int, int]] = []
    fit_default = recipes.fit_default

    def fit(classifier, features, labels) -> None:
        fit_default(classifier, features, labels)
        fits.append(len(labels))
        heads.append({name: value.clone() for name, value in classifier.head.state_dict().items()})

    def temperature(probability, positive) -> float:
        tried.append((len(probability(1.0)), len(positive)))
        return 1.25

    monkeypatch.setattr(trials, "fit_default", fit)
    monkeypatch.setattr(trials, "fit_temperature", temperature)
    report = finetune(noise_boxes(), replace(CONFIG, pixel_size=PIXEL_SIZE), tmp_path / "m")
    held = 2 * 2  # 0.2 of 8 a class, rounded
    assert report.validation_shots == {"particle": 2, "empty": 2}
    assert fits == [16 - held] * 5 + [16]
    assert tried == [(5 * held, 5 * held)]
    classifier = load_checkpoint(tmp_path / "m").classifier
    assert classifier.temperature == 1.25
    saved = classifier.head.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in heads[-1].items())
    assert not all(torch.equal(value, saved[name]) for name, value in heads[-2].items())


@pytest.mark.usefixtures("small_views")
def test_three_branches_and_random_weights(shots: Shots, tmp_path: Path) -> None:
    config = replace(CONFIG, shots_per_class=4, loss_weights=(1.0, 0.5, 0.25), init="none")
    finetune(shots, config, tmp_path / "m")
    classifier = load_checkpoint(tmp_path / "m").classifier
    assert len(classifier.head.branches) == 3
    assert classifier.spec.loss_weights == (1.0, 0.5, 0.25)
    features = torch.randn(3, classifier.spec.layout.width)
    with torch.no_grad():
        one, two, three = classifier.head(features)
        expected = (one + 0.5 * two + 0.25 * three) / 1.75
        torch.testing.assert_close(classifier.logits(features), expected)


@pytest.mark.usefixtures("small_views")
def test_nothing_held_out(shots: Shots, tmp_path: Path) -> None:
    report = finetune(shots, replace(CONFIG, shots_per_class=4, validation_fraction=0.0), tmp_path / "m")
    assert report.accuracy is report.macro_f1 is None
    assert report.per_class_f1 == {}
    assert (report.validation_by, report.validation_splits) == ("none", 0)
    assert report.train_shots == {"particle": 4, "background": 4, "carbon": 4}
    assert report.validation_shots == {"particle": 0, "background": 0, "carbon": 0}
    assert report.warnings == ("too few shots to hold any out: nothing says how good this model is",)
    assert load_checkpoint(tmp_path / "m").classifier.temperature == 1


@pytest.mark.usefixtures("small_views")
def test_fewer_shots_than_asked_for(shots: Shots, tmp_path: Path) -> None:
    keep = np.flatnonzero((shots.labels != 2) | (np.cumsum(shots.labels == 2) <= 3))
    few = replace(
        shots,
        labels=shots.labels[keep],
        coordinates=shots.coordinates[keep],
        micrograph_index=shots.micrograph_index[keep],
    )
    report = finetune(few, replace(CONFIG, shots_per_class=4), tmp_path / "m")
    assert report.warnings == ("class 'carbon' has 3 shots where 4 are asked for; all of them are used",)


@pytest.mark.usefixtures("quick_paper")
def test_the_recipe_of_the_paper(shots: Shots, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    config = replace(CONFIG, recipe="paper", shots_per_class=6)
    report = finetune(shots, config, tmp_path / "m", on_progress=lambda *now: seen.append(now))
    assert report.passes == "1 pass a pick"
    assert report.validation_splits == 1
    assert report.accuracy is not None
    assert [now for now in seen if now[0] == "training"] == [("training", 1, 2), ("training", 2, 2)]
    classifier = load_checkpoint(tmp_path / "m").classifier
    assert classifier.spec.windows == ()
    assert classifier.spec.box_px(classifier.spec.view_diameters[0]) == 97  # 1.5 diameters of 62 px
    assert 1 / 8 <= classifier.temperature <= 2
    finetune(shots, config, tmp_path / "again")
    assert (tmp_path / "m").read_bytes() == (tmp_path / "again").read_bytes()
    untrained = recipes.make_classifier(config, shots.class_names, None)
    first = classifier.backbone.body.conv1.weight.detach()
    assert (first - untrained.backbone.body.conv1.weight).abs().max() > 1e-6
    assert float(first.abs().max()) < 100
    pixels = np.random.default_rng(0).standard_normal((200, 230)).astype(np.float32)
    picks = np.array([[0.0, 0.0], [229, 199], [-19, 100], [115, 219]])
    found = load_scorer(tmp_path / "m", "cpu", batch_size=3).score(
        Micrograph(tmp_path / "x.mrc", pixels, None), picks, PIXEL_SIZE
    )
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("recipe", ["default", "paper"])
@pytest.mark.usefixtures("quick_paper")
def test_boxes_without_micrographs(tmp_path: Path, recipe: str) -> None:
    config = replace(CONFIG, pixel_size=PIXEL_SIZE, recipe=recipe)
    report = finetune(noise_boxes(), config, tmp_path / "m")
    assert report.validation_by == "shot"
    passes = len(recipes.VIEW_DIAMETERS) * recipes.ORIENTATIONS if recipe == "default" else 1
    plural = "es" if passes > 1 else ""
    assert report.passes == f"{passes} pass{plural} a pick"
    assert report.warnings[0].startswith("class 'particle' has 8 shots where 30 are asked for")
    scorer = load_scorer(tmp_path / "m", "cpu")
    spec = scorer.checkpoint.classifier.spec
    assert spec.normalise == "box"
    assert (spec.parents, spec.prior_weight) == ((), 0.0)  # the pretraining's head has seen whole micrographs
    assert spec.box_diameters == 1.5  # 60 px over 40 px
    assert not spec.dense
    rng = np.random.default_rng(1)
    pixels = rng.standard_normal((200, 230)).astype(np.float32)
    rows, columns = np.mgrid[:200, :230]
    for x, y in ((60, 60), (60, 140)):
        pixels -= 1.5 * (np.hypot(rows - y, columns - x) < 20).astype(np.float32)
    picks = np.array([[60.0, 60.0], [60, 140], [170, 60], [170, 140], [0, 0], [229, 199], [-15, 214]])
    found = scorer.score(Micrograph(tmp_path / "x.mrc", pixels, None), picks, PIXEL_SIZE)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    if recipe == "default":  # two epochs teach little
        assert report.accuracy == 1
        assert found[:4].argmax(1).tolist() == [0, 0, 1, 1]
        assert load_checkpoint(tmp_path / "m").provenance["micrographs"] is None


@pytest.mark.usefixtures("small_views")
def test_first_weights_of_a_file_and_of_imagenet(shots, tmp_path, monkeypatch) -> None:
    """Without a network; the names of torchvision, three channels, a head that is passed over."""
    import timm
    import torchvision
    from safetensors.torch import save_file

    create = timm.create_model

    def offline(*arguments, pretrained=False, **others):
        if pretrained:
            raise OSError("no route to host")
        return create(*arguments, **others)

    monkeypatch.setattr(timm, "create_model", offline)
    torch.manual_seed(0)
    save_file(torchvision.models.resnet18(weights=None).state_dict(), str(tmp_path / "w.safetensors"))
    few = replace(CONFIG, shots_per_class=2)
    finetune(shots, replace(few, init=str(tmp_path / "w.safetensors")), tmp_path / "a")
    finetune(shots, replace(few, init="imagenet", weights=tmp_path / "w.safetensors"), tmp_path / "b")
    a, b = (load_checkpoint(tmp_path / name).classifier.state_dict() for name in "ab")
    assert all(torch.equal(value, b[name]) for name, value in a.items())
    with pytest.raises(PickeroptError, match=r"could not fetch .*OSError: no route to host.*--weights"):
        finetune(shots, replace(few, init="imagenet"), tmp_path / "c")
    assert not (tmp_path / "c").exists()


SETTINGS: list[tuple[dict[str, object], type[PickeroptError], str]] = [
    ({"recipe": "papre"}, PickeroptError, "--recipe papre: there are default and paper"),
    ({"loss_weights": (1.0,)}, PickeroptError, "--loss-weights 1.0: give two or three"),
    ({"loss_weights": (1.0, 1.0, 1.0, 1.0)}, PickeroptError, "give two or three"),
    ({"loss_weights": (0.0, 1.0)}, PickeroptError, "the first above 0"),
    ({"loss_weights": (1.0, -0.1)}, PickeroptError, "numbers of 0 or more"),
    ({"loss_weights": (1.0, float("nan"))}, PickeroptError, "--loss-weights 1.0,nan"),
    ({"loss_weights": (float("inf"), 1.0)}, PickeroptError, "--loss-weights inf"),
    ({"diameter_angstrom": 0.0}, GeometryError, "--diameter is 0; give"),
    ({"diameter_angstrom": float("nan")}, GeometryError, "--diameter is nan"),
    ({"diameter_angstrom": float("inf")}, GeometryError, "--diameter is inf"),
    (
        {"diameter_angstrom": 1300.0},
        GeometryError,
        r"m0.mrc: a particle of 1300 Å is 260.0 px .* 288 x 256 px",
    ),
    ({"diameter_angstrom": 15.0}, GeometryError, r"m0.mrc: a particle of 15 Å is 3.0 px across"),
    ({"pixel_size": -1.0}, GeometryError, "--pixel-size is -1; give"),
    ({"pixel_size": float("nan")}, GeometryError, "--pixel-size is nan"),
    ({"pixel_size": 0.5}, GeometryError, "m0.mrc: a particle of 200 Å is 400.0 px"),
    ({"validation_fraction": 1.0}, PickeroptError, "a validation fraction of 1 cannot"),
    ({"validation_fraction": -0.1}, PickeroptError, "a validation fraction of -0.1 cannot"),
    ({"shots_per_class": 1}, PickeroptError, "1 shots a class cannot train"),
    ({"seed": -1}, PickeroptError, "--seed -1: give a whole number from 0"),
    ({"seed": 2**32}, PickeroptError, "--seed 4294967296: give"),
    ({"device": "tpu"}, PickeroptError, "--device tpu"),
    ({"backbone": "vgg16", "init": "none"}, PickeroptError, "'vgg16' is not a plain ResNet"),
    ({"backbone": "resnet50"}, PickeroptError, "shipped is a resnet18"),
    ({"init": "shiped"}, PickeroptError, "shiped: no such weights file"),
]


@pytest.mark.parametrize(("settings", "kind", "message"), SETTINGS)
@pytest.mark.usefixtures("no_compute")
def test_settings_are_refused_before_any_compute(shots, tmp_path, settings, kind, message) -> None:
    with pytest.raises(kind, match=message):
        finetune(shots, replace(CONFIG, **settings), tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_compute")
def test_an_output_in_the_way(shots: Shots, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"is a folder; give the name of the model file .*/model.safetensors"):
        finetune(shots, CONFIG, tmp_path)
    with pytest.raises(OutputError, match="is a folder"):
        finetune(shots, CONFIG, tmp_path, overwrite=True)
    (tmp_path / "m").write_text("mine")
    with pytest.raises(OutputError, match=r"m exists; give another --out, or --overwrite"):
        finetune(shots, CONFIG, tmp_path / "m")
    assert (tmp_path / "m").read_text() == "mine"


@pytest.mark.usefixtures("small_views")
def test_overwriting_when_told_to(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("mine")
    few = replace(CONFIG, pixel_size=PIXEL_SIZE, validation_fraction=0.0)
    finetune(noise_boxes(2), few, tmp_path / "m", overwrite=True)
    load_checkpoint(tmp_path / "m")


@pytest.mark.usefixtures("no_compute")
def test_boxes_need_a_pixel_size_and_room_for_the_particle(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match=r"boxes without micrographs: give .* --pixel-size"):
        finetune(noise_boxes(), CONFIG, tmp_path / "m")
    with pytest.raises(GeometryError, match=r"box 0: 0.60 particle diameters wide; it must hold"):
        finetune(noise_boxes(), replace(CONFIG, pixel_size=2.0), tmp_path / "m")


@pytest.mark.usefixtures("no_compute")
def test_pixel_sizes_that_disagree_or_are_not_said(shots: Shots, tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match=r"m0.mrc: 5 Å/px by the header, 6 Å/px by the shots; give"):
        finetune(replace(shots, pixel_size=6.0), CONFIG, tmp_path / "m")
    pixels = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    write_mrc(tmp_path / "unset.mrc", pixels, 1.0)
    unset = replace(
        shots,
        micrographs=(tmp_path / "unset.mrc",),
        micrograph_index=np.zeros_like(shots.micrograph_index),
    )
    with pytest.raises(GeometryError, match=r"unset.mrc: neither its header .*--pixel-size"):
        finetune(unset, CONFIG, tmp_path / "m")


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_bytes(b"x" * 100)])
@pytest.mark.usefixtures("no_compute")
def test_a_broken_micrograph(tmp_path: Path, change: Callable[[Path], None]) -> None:
    shots = make_shots(tmp_path, 2, 3)
    change(shots.micrographs[1])
    with pytest.raises(MicrographError, match=r"m1.mrc"):
        finetune(shots, replace(CONFIG, shots_per_class=None), tmp_path / "m")


def test_a_micrograph_that_is_all_but_constant_is_named(tmp_path: Path) -> None:
    shots = make_shots(tmp_path, 2, 3)
    flat = np.full((256, 288), 3.3, np.float32)
    flat[:50] = np.random.default_rng(0).standard_normal((50, 288))
    write_mrc(shots.micrographs[1], flat, PIXEL_SIZE)
    with pytest.raises(MicrographError, match=r"m1.mrc: more than half of the pixels .*; exclude"):
        finetune(shots, replace(CONFIG, shots_per_class=None), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_box_that_is_constant_is_named(tmp_path: Path) -> None:
    shots = noise_boxes(3)
    shots.boxes[4][:] = 4.2
    with pytest.raises(GeometryError, match=r"^box 4: more than half of the pixels .*; or leave this box out"):
        finetune(shots, replace(CONFIG, pixel_size=PIXEL_SIZE), tmp_path / "m")


# contrast of boxes, frame of points


def turned(shots: BoxShots) -> BoxShots:
    return replace(shots, boxes=tuple(-box for box in shots.boxes))


@pytest.mark.usefixtures("no_compute")
def test_boxes_of_inverted_contrast_are_refused(tmp_path: Path) -> None:
    config = replace(CONFIG, pixel_size=PIXEL_SIZE)
    with pytest.raises(ShotsError, match=r"box 0 and the other boxes: particles are brighter .*give --invert, or"):
        finetune(turned(noise_boxes()), config, tmp_path / "m")


@pytest.mark.usefixtures("small_views")
def test_boxes_are_turned_when_told_to(tmp_path: Path) -> None:
    config = replace(CONFIG, pixel_size=PIXEL_SIZE, validation_fraction=0.0)
    finetune(noise_boxes(), config, tmp_path / "dark")
    finetune(turned(noise_boxes()), replace(config, invert=True), tmp_path / "turned")
    finetune(turned(noise_boxes()), replace(config, invert=False), tmp_path / "bright")
    dark, again, bright = (
        load_checkpoint(tmp_path / name).classifier.state_dict() for name in ("dark", "turned", "bright")
    )
    assert all(torch.equal(value, again[name]) for name, value in dark.items())
    assert not all(torch.equal(value, bright[name]) for name, value in dark.items())


@pytest.mark.parametrize(("count", "side", "bright"), [(4, 60, False), (5, 60, True), (8, 40, False)])
def test_contrast_is_told_from_enough_boxes_with_enough_around(count: int, side: int, bright: bool) -> None:
    """In a box as wide as the particle, little but corners lies around it."""
    assert are_bright(turned(noise_boxes(count, side)).boxes[:count], 40.0 if side == 60 else 60.0) == bright


@pytest.mark.parametrize("rings", [(-1.5, -1.5, 0.8), (0.1, -1.2, 0.2), (-0.3, -1.0, 0.0)])
def test_a_fringe_or_a_hollow_middle_is_no_inversion(rings: tuple[float, float, float]) -> None:
    """Grey levels within 0.2, 0.3 and 0.5 diameters."""
    rng = np.random.default_rng(0)
    radius = np.hypot(*(np.mgrid[:64, :64] - 32)) / 40
    particle = np.select([radius < 0.2, radius < 0.3, radius < 0.5], rings)
    boxes = [particle + rng.standard_normal((64, 64)) for _ in range(20)]
    assert not are_bright(boxes, 40.0)
    assert are_bright([-box for box in boxes], 40.0)


@pytest.mark.usefixtures("no_compute")
def test_labelled_particles_in_another_frame_are_refused(tmp_path: Path) -> None:
    shots = make_shots(tmp_path, 6, 6)
    mirrored = shots.coordinates.copy()
    mirrored[:, 1] = SHAPE[0] - 1 - mirrored[:, 1]
    with pytest.raises(
        GeometryError,
        match=r"the labelled particles is wrong.*count y from the last stored row.*--trust-frame",
    ):
        finetune(replace(shots, coordinates=mirrored), CONFIG, tmp_path / "m")
    located = locate(shots, CONFIG).diameters_px
    assert check_shot_frame(shots, located, CONFIG) == ()
    trusted = replace(CONFIG, trust_frame=True)
    assert check_shot_frame(replace(shots, coordinates=mirrored), located, trusted) == ()


@pytest.mark.usefixtures("no_compute")
def test_points_are_not_turned(shots: Shots, tmp_path: Path) -> None:
    with pytest.raises(ShotsError, match="--invert turns boxes"):
        finetune(shots, replace(CONFIG, invert=True), tmp_path / "m")


def test_a_model_little_better_than_chance_is_warned_of(tmp_path: Path) -> None:
    shots = noise_boxes(20)
    labels = np.arange(len(shots)) // 2 % 2  # half of each kind and of each size of box
    config = replace(CONFIG, pixel_size=PIXEL_SIZE, invert=False)
    report = finetune(replace(shots, labels=labels), config, tmp_path / "m")
    assert report.macro_f1 is not None
    assert report.macro_f1 < 0.65
    assert "is little better than chance; look at the labels" in report.warnings[-1]
