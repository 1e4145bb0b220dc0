"""Prune files of picks: score every pick in its micrograph, write the files less the wrong rows."""

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pickeropt
from pickeropt.files import cannot_write
from pickeropt.io.inputs import Inputs
from pickeropt.io.scores import check_scores_fit
from pickeropt.prune.decision import Decision, decide
from pickeropt.prune.filters import measures_of
from pickeropt.prune.outputs import scores_table, summary_content, write_picks
from pickeropt.prune.picker_score import read_labelled_picks
from pickeropt.prune.plan import PrunePlan, make_plan
from pickeropt.prune.prune_config import Finish, MicrographScorer, PruneConfig, PruneSummary, recorded_settings
from pickeropt.prune.prune_summary import NOTHING_KEPT, counts
from pickeropt.prune.scoring import OnProgress, ScoringSetup, score_all
from pickeropt.pruned_run import OWN, SCORES, former_evaluation, write_scores, write_summary
from pickeropt.resumable import open_workspace
from pickeropt.sites import PickSet


def prune(
    inputs: Sequence[Path] | PickSet,
    config: PruneConfig,
    scorer: MicrographScorer,
    *,
    on_progress: OnProgress | None = None,
    finish: Finish | None = None,
) -> PruneSummary:
    """Score the picks of files, lists or folders, or of what was read of them; make `config.out`.

    A pick is kept where P(particle) >= `config.threshold` and no filter is against it. A run that was
    killed, or met a micrograph it could not use, goes on from `OUT.partial` when the same command is
    given; threshold, bounds of filters and prior may differ. With `overwrite` everything may: what was
    finished still counts where micrograph, picks and model are the same. Inputs are only read, and their
    order changes nothing.

    on_progress : called with the number of picks done and of all picks
    finish : called with the folder of the outputs before it gets its name; what it adds comes with them,
        what it returns is warned of
    Raises PickeroptError as `make_plan` does before any compute, FormatError for files that cannot hold
    a score, ShotsError for too few shots on picks; later MicrographError for pixels that are constant
    or not finite, OutputError where nothing can be written.
    """
    begun = time.perf_counter()
    plan = make_plan(inputs, config, scorer)
    if config.write_score:
        check_scores_fit([source.file for source in plan.sources])
    labelled = read_labelled_picks(plan, config, scorer.diameter_angstrom)
    setup = ScoringSetup(scorer, measures_of(config.filters))
    with open_workspace(config.out, _settings(plan, config, setup), config.overwrite, OWN) as workspace:
        values, resumed = score_all(plan, setup, workspace, on_progress or (lambda done, of: None))
        found = decide(plan, config, setup, values, labelled)
        summary = _summary(plan, config, setup, found, (resumed, time.perf_counter() - begun))
        given = Inputs(plan.sources, plan.lists, plan.warnings)
        try:
            shutil.rmtree(workspace.staging, ignore_errors=True)
            written = found.scores.particle if config.write_score else None
            write_picks(workspace.staging, given, found.judged.keep, config.out, written)
            write_scores(workspace.staging / SCORES, scores_table(plan, found))
            paths = inputs.paths if isinstance(inputs, PickSet) else inputs
            settings = recorded_settings(config, scorer.config)
            write_summary(workspace.staging, summary_content(summary, settings, (paths, plan)))
        except OSError as error:
            raise cannot_write(config.out, error) from error
        doubts = finish(workspace.staging) if finish else ()
        stays = former_evaluation(workspace.publish())
    return replace(summary, warnings=(*summary.warnings, *doubts, *stays))


def _settings(plan: PrunePlan, config: PruneConfig, setup: ScoringSetup) -> dict[str, str]:
    """What the scores depend on, by name: two runs that agree here may share their work."""
    files = {source.name: source.file.content for source in plan.sources}
    files |= {listed.name: listed.coordinates.content for listed in plan.lists}
    return {
        "the version": pickeropt.__version__,
        "the model": setup.scorer.digest,
        "the classes": ", ".join(setup.scorer.class_names),
        "--diameter": repr(float(setup.scorer.diameter_angstrom)),
        "--pixel-size": "of the files" if config.pixel_size is None else repr(float(config.pixel_size)),
        "the filters": ", ".join(measure.name for measure in setup.measures) or "none",
        **{name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
    }


def _summary(
    plan: PrunePlan, config: PruneConfig, setup: ScoringSetup, found: Decision, course: tuple[int, float]
) -> PruneSummary:
    """course : micrographs taken over from an earlier run, and seconds."""
    numbers = counts(found.judged)
    nothing = () if numbers["kept"] else (NOTHING_KEPT,)
    return PruneSummary(
        **numbers,
        threshold=config.threshold,
        diameter_angstrom=float(setup.scorer.diameter_angstrom),
        pixel_sizes=tuple(sorted({float(site.pixel_size) for site in plan.picks.sites})),
        seconds=course[1],
        model_digest=setup.scorer.digest,
        out=config.out,
        warnings=(*setup.scorer.notes, *plan.warnings, *nothing),
        resumed=course[0],
        prior=found.prior,
        notes=found.notes,
    )
