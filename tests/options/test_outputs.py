"""Tests the tables of output columns and of row statuses."""

from __future__ import annotations

import pytest

from batchmax.outputs import OUTPUTS, TOP_K_OUTPUTS
from batchmax.statuses import LAST_BAD, LAST_WITHOUT_LOSS, LAST_WITHOUT_PROBS, STATUS_NAMES, Status


def test_the_outputs_are_those_of_the_documents():
    """The output columns are those of the documentation, in the order in which messages list them."""
    assert list(OUTPUTS) == (
        [
            "probs",
            "log_probs",
            "loss",
            "losses",
            "pred",
            "preds",
            "confidence",
            "margin",
            "entropy",
            "logsumexp",
            "rank",
            "correct",
            "el2n",
            "sample",
            "status",
        ]
    )
    assert TOP_K_OUTPUTS == ("top_k_classes", "top_k_probs")


def test_which_outputs_need_a_label():
    """Only the outputs that compare a prediction with the label need a label."""
    needing = [name for name, output in OUTPUTS.items() if output.needs_label]
    assert needing == ["loss", "losses", "rank", "correct", "el2n"]


@pytest.mark.parametrize(
    ("status", "has_probs", "has_loss", "is_bad"),
    [
        ("null_logits", False, False, True),
        ("bad_length", False, False, True),
        ("nan_logit", False, False, True),
        ("inf_logit", False, False, True),
        ("all_masked", False, False, True),
        ("bad_label", True, False, True),
        ("ignored", True, False, False),
        ("unlabelled", True, False, False),
        ("masked_label", True, True, False),
        ("ok", True, True, False),
    ],
)
def test_what_a_status_means(status, has_probs, has_loss, is_bad):
    """The three limits of the statuses match the documented table: no probabilities, no loss, bad."""
    number = Status[status.upper()]
    assert STATUS_NAMES[number] == status
    assert (number > LAST_WITHOUT_PROBS) == has_probs
    assert (number > LAST_WITHOUT_LOSS) == has_loss
    assert (number <= LAST_BAD) == is_bad


def test_statuses_count_from_zero():
    """Status numbers are indices into the names, so that a column of numbers has the codes of a dictionary."""
    assert [int(status) for status in Status] == list(range(len(STATUS_NAMES)))
