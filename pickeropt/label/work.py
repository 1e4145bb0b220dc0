"""The page's buttons: what the commands `finetune` and `prune` do, from the labels of this session."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pickeropt.errors import OutputError, PickeroptError
from pickeropt.io.tables import partial_name
from pickeropt.label.jobs import OnProgress
from pickeropt.label.labels_file import digest, keep_copy
from pickeropt.label.results import Results
from pickeropt.label.session import Session
from pickeropt.prune.prune_config import Finish


class Work:
    """Fine-tunes and prunes. torch is imported by the first use.

    inputs : the files of picks, as the user gave them
    finish : as `prune` calls it
    """

    def __init__(
        self, session: Session, results: Results, inputs: Sequence[Path], finish: Finish | None = None
    ) -> None:
        self._session, self._results, self._inputs, self._finish = session, results, inputs, finish
        self._own_model: bytes | None = None  # digest of what this session wrote

    def finetune(self, on_progress: OnProgress) -> str:
        """Learn a model from all labels, and write it; a line on how good it is.

        A model that is there and that this session did not write is kept under another name.
        Raises PickeroptError as `read_labelled_star` and `finetune` do.
        """
        on_progress("reading the labels", 0, 0)
        from pickeropt.finetune.finetune_config import FinetuneConfig
        from pickeropt.finetune.finetuning import finetune
        from pickeropt.shots import read_labelled_star

        config = self._session.config
        shots = read_labelled_star(config.out, self._folders())
        settings = FinetuneConfig(
            diameter_angstrom=config.diameter_angstrom,
            pixel_size=config.pixel_size or self._session.micrographs.optics_size(),
            shots_per_class=None,
            device=config.device,
            trust_frame=True,  # whoever labelled has seen the boxes
        )
        new = partial_name(config.model_file)
        report = finetune(shots, settings, new, overwrite=True, on_progress=on_progress)
        kept = self._publish(new)
        count = sum(report.train_shots.values()) + sum(report.validation_shots.values())
        quality = "" if report.macro_f1 is None else f", macro-F1 {report.macro_f1:.2f} on held-out labels"
        warnings = "".join(f"; {warning}" for warning in report.warnings)
        return f"{config.model_file} learnt from {count} labels{quality}{kept}{warnings}"

    def _publish(self, new: Path) -> str:
        """Put a new model in its place; a remark on where the one is that another program put there."""
        model = self._session.config.model_file
        remark = ""
        try:
            if model.exists() and digest(model) != self._own_model:
                remark = f"; the earlier one is now {keep_copy(model)}"
            self._own_model = digest(new)
            new.replace(model)
        except OSError as error:
            raise OutputError(f"{model}: cannot be replaced ({error.strerror}); move it away") from error
        finally:
            new.unlink(missing_ok=True)
        return remark

    def prune(self, threshold: float, on_progress: OnProgress) -> str:
        """Prune all picks with the model, the general one where there is none; a line on what came of it.

        Raises PickeroptError as `prune` does, OutputError for a folder of another model or other picks.
        """
        on_progress("starting the model", 0, 0)
        from pickeropt.prune.prune_config import PruneConfig
        from pickeropt.prune.pruning import prune
        from pickeropt.prune.scorer import load_scorer

        config = self._session.config
        model = config.model_file if config.model_file.is_file() else None
        self._check_own()
        scorer = load_scorer(model, config.device, None, config.diameter_angstrom if model is None else None)
        settings = PruneConfig(
            model=model,
            micrographs=config.micrographs,
            out=config.pruned,
            threshold=threshold,
            diameter_angstrom=config.diameter_angstrom if model is None else None,
            pixel_size=config.pixel_size,
            device=config.device,
            overwrite=True,
            trust_frame=config.trust_frame,
        )
        summary = prune(
            self._inputs,
            settings,
            scorer,
            on_progress=lambda done, of: on_progress("pruning", done, of),
            finish=self._finish,
        )
        on_progress("reading the scores", 0, 0)
        self._results.read_pruned(config.pruned)
        warnings = "".join(f"; {warning}" for warning in summary.warnings)
        return f"{summary.kept:,} of {summary.picks:,} picks kept, in {config.pruned}{warnings}"

    def threshold(self, threshold: float) -> dict[str, Any]:
        """Another threshold for the pruning. Raises PickeroptError where there is none, or now another."""
        if self._results.pruned is None:
            raise PickeroptError("nothing was pruned yet; prune first")
        self._check_own()
        return self._results.rethreshold(self._session.config.pruned, threshold, self._finish)

    def earlier(self) -> None:
        """Take over the pruning of an earlier session; one that does not fit these picks is left alone."""
        folder = self._session.config.pruned
        try:
            self._check_own()
            if folder.is_dir():
                self._results.read_pruned(folder)
        except PickeroptError:
            return

    def _check_own(self) -> None:
        """Raises OutputError for a pruning that is not of this session's model or the general one, or not of
        its picks."""
        folder, model = self._session.config.pruned, self._session.config.model_file
        if not folder.exists():
            return
        try:
            summary = json.loads((folder / "summary.json").read_bytes())
            made_with = summary["settings"]["model"]
            of_these = self._results.is_of_these(summary)
        except (OSError, ValueError, KeyError, TypeError):
            made_with, of_these = "", False
        if made_with is not None and Path(made_with).resolve() != model.resolve():
            raise OutputError(f"{folder}: is there already, and is not of this model; move it away")
        if not of_these:
            raise OutputError(f"{folder}: is there already, and is not of these picks; move it away")

    def _folders(self) -> tuple[Path, ...]:
        """Where the micrographs are: the user's folders, and those where they were found."""
        session = self._session
        with session.lock:
            places = {session.store.place(key).micrograph for key in session.store.labels}
            paths = [session.micrographs.sites[place].path for place in sorted(places)]
        parents = dict.fromkeys(path.parent for path in paths if path is not None)
        return (*session.config.micrographs, *parents)
