"""`pickeropt evaluate`: its options, and what it shows."""

from pickeropt.commands import options as given


def run_evaluate(
    scores: given.ScoresFile, truth: given.Truth, radius: given.Radius = None, out: given.Pictures = None
) -> None:
    """Measure a pruning against true particles.

    Prints precision, recall and F1 before and after, and both rankings: the classifier's
    and the picker's. Writes evaluation.json and pr_curve.png.
    """
    from pickeropt.commands.console import show_evaluation
    from pickeropt.evaluate.evaluation import evaluate_scores, write_evaluation
    from pickeropt.pruned_run import diameter_px

    evaluation = evaluate_scores(scores, truth, radius, diameter_px=diameter_px(scores))
    show_evaluation(evaluation, write_evaluation(evaluation, out or scores.parent))
