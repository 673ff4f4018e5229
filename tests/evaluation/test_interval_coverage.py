"""Intervals of a confidence level of 95 % contain the actual value of a metric in 95 % of simulated files."""

from __future__ import annotations

import pytest

from tests.support.simulated_files import MODELS, coverage

CASES = [
    (n, prevalence, model, n_clusters)
    for n in (300, 2000)
    for prevalence in (0.05, 0.3)
    for model in MODELS
    for n_clusters in (None, 200, 40, 20)
]


def check(found, least, most, slack):
    """Check the shares of files; few files with an interval, of rare predictions, show nothing."""
    for name, (share, missing) in found.items():
        if missing < 0.5:
            # ECE is at most this wrong: its interval begins at 0 unless the probabilities aren't calibrated.
            highest = 1.0 if name == "ece" or missing else most + slack
            assert least - slack <= share <= highest, (name, share, missing)


@pytest.mark.parametrize(
    ("n", "prevalence", "model", "n_clusters"),
    [(300, 0.3, "nearly", None), (2000, 0.05, "overconfident", None), (2000, 0.3, "calibrated", 40)],
)
def test_intervals_contain_the_actual_value(n, prevalence, model, n_clusters):
    """In 200 files, the share is 95 % within the error of the simulation, four standard errors."""
    check(coverage(200, n, prevalence, model, n_clusters), 0.95, 0.95, 4 * 0.0155)


@pytest.mark.sweep(
    keep=lambda n, prevalence, model, n_clusters: (n, prevalence, n_clusters, model) == (300, 0.3, 20, "nearly")
)
@pytest.mark.parametrize(("n", "prevalence", "model", "n_clusters"), CASES)
def test_intervals_contain_the_actual_value_in_every_case(n, prevalence, model, n_clusters):
    """In 500 files, it's between 93 and 97 %, or above 90 % with 20 clusters, within three standard errors.

    Metrics of predictions that are too rare for an interval in some files may be above.
    """
    found = coverage(500, n, prevalence, model, n_clusters)
    check(found, 0.9 if n_clusters == 20 else 0.93, 0.97, 3 * 0.0097)
