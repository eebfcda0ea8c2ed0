"""Many problems in few lines."""

from hypothesis import given
from hypothesis import strategies as st

from stdiff.runtime.problem_kinds import by_kind


def test_a_kind_of_many_is_counted_with_three_examples_and_what_differs():
    sizes = [f"images/{n}.png: masks/{n}.png: mask of {n} x 9 px, not 8" for n in range(1, 7)]
    assert by_kind([*sizes, *(f"{one}.png: empty" for one in "bcdef"), "d.csv: no column 'x'"]) == [
        "6 x mask of … x … px, not …: images/1.png (1, 9, 8), images/2.png (2, 9, 8), "
        "images/3.png (3, 9, 8), ...",
        "5 x empty: b.png, c.png, d.png, e.png, f.png",
        "d.csv: no column 'x'",
    ]


@given(st.lists(st.tuples(st.text(), st.text())))
def test_every_problem_is_counted(problems):
    lines = by_kind(f"{source}: {reason}" for source, reason in problems)
    assert len(lines) <= len(problems)
    assert bool(lines) == bool(problems)
