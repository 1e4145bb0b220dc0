"""`pickeropt evaluate`: its options and its call."""

from pickeropt.commands import options as given


def run_evaluate(
    scores: given.ScoresFile, truth: given.Truth, radius: given.Radius = None, out: given.Pictures = None
) -> None:
    """Measure a pruning against true particles.

    Prints precision, recall and F1 before and after, and both rankings: the classifier's
    and the picker's. Writes evaluation.json and pr_curve.png.
    """
    from pickeropt.api import evaluate
    from pickeropt.commands.console import show_evaluation
    from pickeropt.evaluate.evaluation import write_evaluation

    evaluation = evaluate(scores, truth, radius=radius)
    beside = scores if scores.is_dir() else scores.parent
    show_evaluation(evaluation, write_evaluation(evaluation, out or beside))
