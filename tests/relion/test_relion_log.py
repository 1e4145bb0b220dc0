"""The plot of a job."""

import numpy as np

from pickeropt.relion.job_outputs import Outcome, log_pdf, read_outcome


def test_what_is_drawn_is_what_the_table_says(tmp_path):
    table = tmp_path / "scores.csv"
    table.write_text(
        "file,row,micrograph,x,y,score,kept\n"
        'a.star,0,"b, c.mrc",1,2,0.750000,1\n'
        "a.star,1,a.mrc,1,2,0.250000,0\n"
        'a.star,2,"b, c.mrc",1,2,0.500000,1\n'
    )
    found = read_outcome(table)
    assert found.score.tolist() == [0.75, 0.25, 0.5]
    assert found.kept.tolist() == [True, False, True]
    assert found.micrograph.tolist() == [0, 1, 0]
    assert found.names == ("b, c.mrc", "a.mrc")


def outcome(count, micrographs):
    rng = np.random.default_rng(0)
    score = rng.random(count)
    names = tuple(f"Movies/m{i}.mrc" for i in range(micrographs))
    return Outcome(score, score > 0.5, np.sort(rng.integers(0, micrographs, count)), names)


def test_the_plot_has_two_pages_and_is_the_same_each_time():
    pdf = log_pdf(outcome(500, 12), 0.5)
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") == 2
    assert pdf == log_pdf(outcome(500, 12), 0.5)


def test_all_kept_or_all_rejected_can_be_drawn():
    for kept in (True, False):
        found = outcome(20, 100)
        same = Outcome(found.score, np.full(20, kept), found.micrograph, found.names)
        assert log_pdf(same, 0.5).startswith(b"%PDF")
