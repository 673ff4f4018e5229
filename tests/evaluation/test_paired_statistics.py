"""Tests the statistical tests and the divergence of paired rows against SciPy and mpmath."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmax.evaluation.comparison.paired_tests import MOST_EXACT, Differences, mcnemar
from batchmax.kernels.kl_divergence import divergence_rows
from tests.support.comparisons import logits_of
from tests.support.requirements import optional, package
from tests.support.rows import INF, NAN

mpmath = optional("mpmath")
stats = optional("scipy.stats")
rel_entr = package("scipy.special").rel_entr
softmax = package("scipy.special").softmax


# Statistical tests


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_p_value_is_exact(one, other):
    """The exact McNemar p-value is that of SciPy's binomial test."""
    p, method = mcnemar(one, other)
    assert method == "exact"
    assert p == pytest.approx(stats.binomtest(one, one + other).pvalue if one + other else 1.0, rel=1e-12)


def test_mcnemar_p_value_of_many_flips_is_chi_square():
    """Above ``MOST_EXACT`` flips, the p-value is that of chi-square with Edwards's correction.

    It is close to the exact one.
    """
    one, other = 5100, MOST_EXACT - 5000
    p, method = mcnemar(one, other)
    assert method == "asymptotic"
    assert p == pytest.approx(stats.chi2.sf((abs(one - other) - 1) ** 2 / (one + other), 1), rel=1e-9)
    assert p == pytest.approx(stats.binomtest(one, one + other).pvalue, rel=2e-3)
    assert mcnemar(6000, 6000) == (1.0, "asymptotic")
    assert mcnemar(MOST_EXACT, 0)[0] >= 0


def test_interval_is_accurate_far_from_zero():
    """For a mean change that is large compared with its spread, the standard error matches exact arithmetic."""
    rng = np.random.default_rng(7)
    before = rng.random(10_000)
    after = before + 1e6 + rng.standard_normal(10_000) * 1e-3
    sums = Differences()
    for start in range(0, 10_000, 999):
        sums.add(before[start : start + 999], after[start : start + 999])
    found, error = sums.mean_and_error()
    exact = [mpmath.mpf(value) for value in (after - before)]
    mean = mpmath.fsum(exact) / len(exact)
    spread = mpmath.sqrt(mpmath.fsum((value - mean) ** 2 for value in exact) / (len(exact) - 1))
    assert found == pytest.approx(float(mean), rel=1e-15)
    assert error == pytest.approx(float(spread / 100), rel=1e-6)


def test_one_pair_has_no_error_and_no_pairs_no_mean():
    """One pair has a mean but no standard error; zero pairs have neither."""
    sums = Differences()
    assert math.isnan(sums.mean_and_error()[0])
    sums.add(np.array([1.0]), np.array([3.0]))
    mean, error = sums.mean_and_error()
    assert (mean, math.isnan(error)) == (2.0, True)


# Divergence


def exact_divergence(a, b, beta_a, beta_b):
    """Return the KL divergence, computed with 60 digits."""
    with mpmath.workdps(60):
        logs = []
        for row, beta in ((a, beta_a), (b, beta_b)):
            scaled = [mpmath.mpf(float(z)) * mpmath.mpf(beta) for z in row]
            log_sum = mpmath.log(mpmath.fsum(mpmath.exp(z) for z in scaled))
            logs.append([z - log_sum for z in scaled])
        return float(mpmath.fsum(mpmath.exp(p) * (p - q) for p, q in zip(*logs, strict=True) if p != -mpmath.inf))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 2, 7, 16, 17, 48, 49, 63, 64, 65, 100])
@pytest.mark.parametrize(("apart", "tolerance"), [(10.0, 1e-13), (1.0, 1e-13), (1e-3, 1e-12), (1e-6, 1e-8)])
def test_divergence_is_accurate_for_different_and_almost_equal_rows(dtype, k, apart, tolerance):
    """The KL divergence is accurate even for almost equal rows, where the textbook sum loses all digits."""
    a = logits_of(20, 1, k, dtype)
    b = (a + apart * logits_of(20, 2, k, dtype)).astype(dtype)
    found = np.empty(20)
    divergence_rows(a, b, 1.0, 0.7 if apart > 1 else 1.0, found)
    wanted = [exact_divergence(*pair, 1.0, 0.7 if apart > 1 else 1.0) for pair in zip(a, b, strict=True)]
    if dtype == np.float32:
        np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-20)
    else:
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=1e-30)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [3, 70])
def test_divergence_of_masked_huge_and_bad_rows(dtype, classes):
    """A class masked in a doesn't matter; one masked only in b gives an infinite divergence.

    Differences far beyond the range of exp stay finite. Rows with NaN or +inf, or of only -inf, give NaN.
    """
    huge = float(np.finfo(dtype).max) / 4
    a = np.array([[0, -INF, 1], [0, 1, 2], [0, -INF, 2], [huge, 0, 0], [NAN, 1, 2], [-INF] * 3, [5, 1, 2], [0, 800, 0]])
    b = np.array(
        [[0, 1, 1], [0, -INF, 2], [0, -INF, 2], [huge, 0, 0], [0, 1, 2], [0, 1, 2], [INF, 1, 2], [800.0, 0, 0]]
    )
    masked = np.full((len(a), classes - 3), -INF)
    a, b = (np.concatenate([rows, masked], axis=1).astype(dtype) for rows in (a, b))
    found = np.empty(len(a))
    divergence_rows(a, b, 1.0, 1.0, found)
    p, q = softmax(a[0].astype(np.float64)), softmax(b[0].astype(np.float64))
    assert found[0] == pytest.approx(rel_entr(p, q).sum(), rel=1e-14 if dtype == np.float64 else 1e-7)
    assert found[1:4].tolist() == [INF, 0, 0]
    assert np.isnan(found[4:7]).all()
    assert found[7] == pytest.approx(800.0)
    assert math.isfinite(found[7])


@pytest.mark.parametrize("k", [2, 37, 75])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_divergence_does_not_depend_on_other_rows(dtype, k):
    """The divergence of a row has the same bits whether it is computed alone or with other rows."""
    a, b = logits_of(50, 1, k, dtype), logits_of(50, 2, k, dtype)
    whole, alone = np.empty(50), np.empty(1)
    divergence_rows(a, b, 1.0, 1.0, whole)
    for row in range(50):
        divergence_rows(a[row : row + 1], b[row : row + 1], 1.0, 1.0, alone)
        assert alone[0] == whole[row]
