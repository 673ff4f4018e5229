"""The output columns of softmax: all but those of activations with independent classes."""

from __future__ import annotations

from batchmax.outputs import OUTPUTS

SOFTMAX_OUTPUTS = tuple(name for name, output in OUTPUTS.items() if output.of != "independent")
