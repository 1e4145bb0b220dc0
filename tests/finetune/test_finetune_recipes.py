"""What each recipe looks at, how it is fitted, and how shots are gathered from micrographs."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_world import CONFIG, DIAMETER, PIXEL_SIZE
from model_world import PARENTS, SOURCES, source_head, source_metadata, source_spec, write_source

from pickeropt.errors import CheckpointError, GeometryError
from pickeropt.finetune import recipes
from pickeropt.finetune.recipes import ShotBoxes, augment, fit_default, fit_paper, make_classifier
from pickeropt.finetune.shot_features import hold_loose, locate
from pickeropt.io.micrographs import read_micrograph, write_mrc
from pickeropt.models.backbone import Backbone, initial_head
from pickeropt.models.features import describe_micrograph
from pickeropt.models.fitting import SgdSchedule, fit_head
from pickeropt.models.head import LIMIT
from pickeropt.shots import Shots

NAMES = ("particle", "ice")
BARE = replace(CONFIG, init="none")


@pytest.mark.parametrize(
    ("recipe", "box_diameters", "expected"),
    [
        ("default", None, (True, True, "micrograph", recipes.STAGES, max(recipes.WINDOWS))),
        ("default", 1.2, (False, False, "box", recipes.STAGES, 1.2)),
        ("default", 9.0, (False, False, "box", recipes.STAGES, max(recipes.WINDOWS))),
        ("paper", None, (False, False, "micrograph", ("layer4",), 1.5)),
        ("paper", 1.2, (False, False, "box", ("layer4",), 1.2)),
        ("paper", 5.0, (False, False, "box", ("layer4",), 1.5)),
    ],
)
def test_what_a_recipe_looks_at(recipe, box_diameters, expected) -> None:
    classifier = make_classifier(replace(BARE, recipe=recipe), NAMES, box_diameters)
    spec = classifier.spec
    assert (spec.dense, spec.centred, spec.normalise, spec.stages, spec.box_diameters) == expected
    assert spec.class_names == NAMES
    assert spec.channels == classifier.backbone.channels
    assert classifier.head.mean.shape == (spec.layout.width,)
    if recipe == "paper":
        assert spec.windows == ()
        assert spec.orientations == 1
        assert spec.layout.width == 512
        assert 1.5 * spec.view_diameters[0] == pytest.approx(224)


def test_the_papers_boxes_show_particles_as_large_as_the_pretraining_saw_them() -> None:
    """At twice that size the shipped weights' features mean nothing: AUC 0.88 in place of 0.96."""
    shipped = make_classifier(replace(CONFIG, recipe="paper", init="shipped"), NAMES, None).spec
    head = initial_head("shipped")
    assert head is not None
    assert shipped.view_diameters == head.spec.view_diameters == recipes.VIEW_DIAMETERS
    assert shipped.box_diameters == recipes.PAPER_BOX_DIAMETERS


def test_the_default_fit_is_the_penalised_one() -> None:
    classifier = make_classifier(BARE, NAMES, None)
    features, labels = torch.randn(10, classifier.spec.layout.width), torch.arange(10) % 2
    reference = make_classifier(BARE, NAMES, None).head
    reference.load_state_dict(classifier.head.state_dict())
    fit_default(classifier, features, labels)
    fit_head(reference, features, labels, CONFIG.loss_weights, recipes.PENALTY / 10)
    for name, value in classifier.head.state_dict().items():
        assert torch.equal(value, reference.state_dict()[name])


@pytest.mark.parametrize(
    ("recipe", "init", "box_diameters", "leans"),
    [
        ("default", "shipped", None, True),
        ("default", "none", None, False),
        ("default", "shipped", 1.5, False),  # boxes without micrographs
        ("paper", "shipped", None, False),
    ],
)
def test_who_leans_on_the_pretraining(recipe, init, box_diameters, leans: bool) -> None:
    config = replace(CONFIG, recipe=recipe, init=init)
    classifier = make_classifier(config, ("particle", "ice", "edge"), box_diameters)
    shipped = initial_head("shipped")
    assert shipped is not None
    spec = classifier.spec
    assert (spec.parents, spec.prior_weight) == ((shipped.parents, recipes.PRIOR_WEIGHT) if leans else ((), 0.0))
    assert spec.class_names == ("particle", "ice", "edge")
    carbon = ("carbon_weight", "carbon_limit", "contaminant_share", "carbon_share")
    expected = [getattr(recipes, name.upper()) for name in carbon] if leans else [0.0, 10.0, 0.0, 1.0]
    assert [getattr(spec, name) for name in carbon] == expected
    assert spec.limit == (None if recipe == "paper" else LIMIT)
    assert (classifier.source_prior is not None) == leans
    if classifier.source_prior is not None:
        assert torch.equal(classifier.source_prior.linear.weight, shipped.weight)
        assert torch.equal(classifier.source_prior.linear.bias, shipped.bias)


def test_the_head_of_a_file_counts_where_it_sees_the_same(tmp_path: Path) -> None:
    default = make_classifier(BARE, NAMES, None)
    fitting = replace(default.spec, class_names=SOURCES, loss_weights=(1.0,), limit=None)
    weights = {name: value.contiguous() for name, value in default.backbone.body.state_dict().items()}
    head = source_head(fitting)
    layer = {"weight": head.weight, "bias": head.bias}
    tensors = {f"head.branches.0.linear.{name}": tensor for name, tensor in layer.items()}
    width = fitting.layout.width
    tensors |= {"head.mean": torch.zeros(width), "head.scale": torch.ones(width)}
    path = write_source(tmp_path / "fits", {**weights, **tensors}, source_metadata(fitting))
    classifier = make_classifier(replace(CONFIG, init=str(path)), NAMES, None)
    assert (classifier.spec.parents, classifier.spec.prior_weight) == (PARENTS, recipes.PRIOR_WEIGHT)
    assert classifier.source_prior is not None
    assert torch.equal(classifier.source_prior.linear.weight, head.weight)
    wider = source_metadata(replace(fitting, windows=(0.5, 1.2, 2.4)))
    path = write_source(tmp_path / "wider", {**weights, **tensors}, wider)
    classifier = make_classifier(replace(CONFIG, init=str(path)), NAMES, None)
    assert (classifier.spec.parents, classifier.source_prior) == ((), None)
    del tensors["head.mean"]
    path = write_source(tmp_path / "broken", {**weights, **tensors}, source_metadata(fitting))
    with pytest.raises(CheckpointError, match="broken: its head cannot be read"):
        make_classifier(replace(CONFIG, init=str(path)), NAMES, None)


def test_the_default_fit_starts_from_the_opinion() -> None:
    """The branches learn what the opinion does not say already."""
    head = source_head(source_spec())
    spec = source_spec(class_names=NAMES, loss_weights=(1.0, 0.3))
    classifier = recipes.with_opinion(spec, Backbone("resnet18", ("layer1",)), head)
    assert classifier.source_prior is not None
    features, labels = torch.randn(10, spec.layout.width), torch.arange(10) % 2
    fresh = deepcopy(classifier.head)
    fit_default(classifier, features, labels)
    for leaning, same in ((recipes.PRIOR_WEIGHT * classifier.source_prior(features), True), (None, False)):
        reference = deepcopy(fresh)
        fit_head(reference, features, labels, spec.loss_weights, recipes.PENALTY / 10, leaning)
        pairs = zip(reference.parameters(), classifier.head.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) == same
    assert torch.equal(classifier.source_prior.linear.weight, head.weight)


def test_augmenting_turns_about_the_middle() -> None:
    """A ring stays, a bar turns, and no value is made up."""
    side = 33
    rows, columns = np.mgrid[:side, :side] - side // 2
    ring = torch.from_numpy(np.exp(-((np.hypot(rows, columns) - 8) ** 2) / 8).astype(np.float32))
    bar = torch.from_numpy((np.abs(rows) < 3).astype(np.float32) * (columns > 0))
    boxes = torch.stack([ring, bar] * 20)[:, None]
    out = augment(boxes, np.random.default_rng(0))
    assert out.shape == boxes.shape
    inner = torch.from_numpy(np.hypot(rows, columns) < 15)
    assert (out[::2, 0] - ring)[:, inner].abs().max() < 0.05
    assert out.min() >= 0
    assert out.max() <= 1 + 1e-5
    mass = out[1::2, 0] * inner
    where = torch.stack([(mass * torch.from_numpy(axis)).sum((1, 2)) / mass.sum((1, 2)) for axis in (rows, columns)], 1)
    assert (where.norm(dim=1) - where.norm(dim=1).mean()).abs().max() < 0.5
    quadrants = {tuple(row) for row in (where > 0).tolist()}
    assert len(quadrants) == 4
    assert torch.equal(out, augment(boxes, np.random.default_rng(0)))
    assert not torch.equal(out, augment(boxes, np.random.default_rng(1)))


def test_augmenting_mirrors_half_of_the_boxes() -> None:
    """Of a right-handed mark the turn alone keeps the hand; a flip along one axis changes it."""
    side = 33
    box = torch.zeros(side, side)
    box[8, 16], box[16, 24] = 1.0, 2.0  # up, and twice as strong to the right
    smooth = torch.nn.functional.avg_pool2d(box[None, None], 5, 1, 2)
    out = augment(smooth.repeat(200, 1, 1, 1), np.random.default_rng(0))[:, 0]
    rows, columns = (torch.from_numpy(a).float() for a in np.mgrid[:side, :side] - side // 2)
    hands = []
    for image in out:
        strong, weak = image > 0.7 * image.max(), (image > 0.2 * image.max()) & (image < 0.6 * image.max())
        up = torch.stack([rows[weak].mean(), columns[weak].mean()])
        right = torch.stack([rows[strong].mean(), columns[strong].mean()])
        hands.append(bool(up[0] * right[1] - up[1] * right[0] < 0))
    assert 70 < sum(hands) < 130


def test_edges_are_replicated_not_blackened() -> None:
    out = augment(torch.full((8, 1, 17, 17), -3.0), np.random.default_rng(0))
    torch.testing.assert_close(out, torch.full((8, 1, 17, 17), -3.0))


def test_the_paper_trains_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "SgdSchedule", lambda: SgdSchedule(epochs=8, batch_size=8))
    monkeypatch.setattr(recipes, "PAPER_VIEW_DIAMETER", 48 / recipes.PAPER_BOX_DIAMETERS)
    torch.manual_seed(0)
    classifier = make_classifier(replace(CONFIG, recipe="paper"), NAMES, None)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    labels = torch.arange(16) % 2
    boxes = torch.randn(16, 1, 65, 65) + 3 * labels[:, None, None, None]
    epochs: list[tuple[int, int]] = []
    cpu = torch.device("cpu")
    fit_paper(classifier, ShotBoxes(boxes, labels), CONFIG, cpu, lambda *now: epochs.append(now))
    assert epochs == [(n, 8) for n in range(1, 9)]
    after = classifier.state_dict()
    moved = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {"backbone", "head"}
    assert all(torch.isfinite(value).all() for value in after.values())
    assert torch.equal(after["head.mean"], before["head.mean"])
    assert not classifier.training
    with torch.no_grad():
        found = classifier.logits(classifier.backbone(boxes)[0].mean((2, 3))).argmax(1)
    assert (found == labels).float().mean() > 0.9


def test_the_paper_scales_what_does_not_come_from_layer4(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that end at layer3 start with a mean pooled feature of 1, as it is behind layer4."""
    monkeypatch.setattr(recipes, "SgdSchedule", lambda: SgdSchedule(epochs=0, batch_size=8))
    config = replace(CONFIG, recipe="paper", init="shipped")
    classifier = make_classifier(config, NAMES, None)
    boxes = torch.randn(20, 1, 65, 65, generator=torch.Generator().manual_seed(2))
    fit_paper(classifier, ShotBoxes(boxes, torch.arange(20) % 2), config, torch.device("cpu"), lambda *now: None)
    with torch.no_grad():
        pooled = classifier.backbone(boxes)[0].mean((2, 3))
    assert classifier.spec.stages == ("layer3",)
    torch.testing.assert_close(classifier.head.scale * pooled.mean(), torch.ones(256), rtol=1e-3, atol=0)
    assert float(classifier.head.scale[0]) > 2


@pytest.fixture
def shots(tmp_path: Path) -> Shots:
    """Two micrographs of unlike pixel size, shots of both in turn."""
    rng = np.random.default_rng(0)
    for name, shape, size in (("a.mrc", (128, 96), 5.0), ("b.mrc", (128, 160), 4.0)):
        write_mrc(tmp_path / name, rng.standard_normal(shape).astype(np.float32), size)
    points = np.array([[30.0, 40], [100, 60], [50, 100], [120, 30]])
    paths = (tmp_path / "a.mrc", tmp_path / "b.mrc")
    return Shots(NAMES, np.array([0, 0, 1, 1]), points, np.array([0, 1, 0, 1]), paths, None)


def test_the_diameter_on_each_micrograph(shots: Shots) -> None:
    assert locate(shots, CONFIG).diameters_px == (40.0, 50.0)
    assert locate(shots, replace(CONFIG, pixel_size=8.0)).diameters_px == (25.0, 25.0)
    with pytest.raises(GeometryError, match=r"b.mrc: 4 Å/px by the header, 5 Å/px by the shots"):
        locate(replace(shots, pixel_size=5.0), CONFIG)


@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_rows_stand_in_the_order_of_the_shots(shots, monkeypatch, recipe: str) -> None:
    monkeypatch.setattr(recipes, "VIEW_DIAMETERS", (16.0,))
    monkeypatch.setattr(recipes, "PAPER_VIEW_DIAMETER", 24 / recipes.PAPER_BOX_DIAMETERS)
    classifier = make_classifier(replace(BARE, recipe=recipe), NAMES, None)
    backbone = classifier.backbone.eval()
    located = locate(shots, CONFIG)
    seen: list[tuple[int, int]] = []
    rows = located.features(backbone, classifier.spec, lambda *now: seen.append(now))
    assert seen == [(2, 4), (4, 4)]
    assert not rows.is_inference()
    for row, xy, index in zip(rows, shots.coordinates, shots.micrograph_index, strict=True):
        pixels = read_micrograph(shots.micrographs[index]).pixels
        diameter = located.diameters_px[index]
        alone = describe_micrograph(backbone, classifier.spec, pixels, diameter, xy[None])
        torch.testing.assert_close(row, alone[0], atol=1e-4, rtol=1e-4)


def test_boxes_in_the_order_of_the_shots(shots: Shots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "PAPER_VIEW_DIAMETER", 60 / recipes.PAPER_BOX_DIAMETERS)
    spec = make_classifier(replace(BARE, recipe="paper"), NAMES, None).spec
    assert spec.view_diameters == (40.0,)
    boxes = locate(shots, CONFIG).boxes(spec, lambda *_: None)
    assert boxes.shape == (4, 1, 65, 65)
    pixels = read_micrograph(shots.micrographs[0]).pixels  # 40 px here too: the view is the micrograph
    expected = torch.from_numpy(pixels[98:103, 48:53])
    middle = boxes[2, 0, 30:35, 30:35]
    slope = (middle[0, 0] - middle[4, 4]) / (expected[0, 0] - expected[4, 4])
    torch.testing.assert_close(middle - middle.mean(), slope * (expected - expected.mean()), atol=1e-4, rtol=0)


def test_a_box_as_wide_as_the_particle_will_do() -> None:
    from pickeropt.shots import BoxShots

    boxes = tuple(np.random.default_rng(0).standard_normal((2, 40, 44)).astype(np.float32))
    loose = BoxShots(NAMES, np.array([0, 1]), boxes, ("a", "b"))
    assert hold_loose(loose, replace(CONFIG, pixel_size=PIXEL_SIZE)).box_diameters == 1.0
    assert hold_loose(loose, replace(CONFIG, pixel_size=PIXEL_SIZE)).groups.tolist() == [0, 0]
    with pytest.raises(GeometryError, match=r"a: 1.00 particle diameters wide"):
        hold_loose(loose, replace(CONFIG, pixel_size=PIXEL_SIZE, diameter_angstrom=DIAMETER + 0.1))
