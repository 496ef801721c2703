import pytest

from raysweep.evaluate import fit_costs


def test_steps_are_compared_with_the_first_row_that_has_fits():
    costs = fit_costs.fit_costs(
        {"never run": [], "head": [(10.0, 100), (30.0, 100)], "all": [(90.0, 150)]}
    )
    assert [(cost.row, cost.fits) for cost in costs] == [("head", 2), ("all", 1)]
    assert [cost.seconds for cost in costs] == [20.0, 90.0]
    assert [cost.per_step for cost in costs] == [1.0, pytest.approx(3.0)]


def test_a_fit_without_steps_has_seconds_only():
    costs = fit_costs.fit_costs({"closed form": [(3.0, 0)], "head": [(10.0, 100)]})
    assert costs[0].texts == ("1", "3.0", "-")
    assert costs[1].per_step == 1.0


def test_markdown_says_how_it_was_measured():
    costs = fit_costs.fit_costs({"head": [(10.0, 100)], "all": [(33.4, 100)]})
    text = fit_costs.to_markdown(costs, row_axis="block")
    assert "| block | fits | seconds | time of a step |" in text
    assert "| all | 1 | 33.4 | 3.34 |" in text
    assert "ran beside" in text
