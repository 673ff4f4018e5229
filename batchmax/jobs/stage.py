"""The stage of a job: what it computes from each chunk, what it counts, and the condition that it checks.

Stages don't know where the results go or how chunks are read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from batchmax import __version__
from batchmax.activations import ACTIVATIONS
from batchmax.columns.label_column import LABEL_SETS
from batchmax.errors import GateError
from batchmax.options.gates import SCORE_FIGURES, Gate, infinite_losses
from batchmax.runtime.buffers import Buffers
from batchmax.runtime.progress import Progress
from batchmax.runtime.text import quantity
from batchmax.scoring.sequence_assembler import CompletedRows
from batchmax.scoring.summary import ScoreSummary
from batchmax.scoring.tally import Tally
from batchmax.sources.chunks import Chunk
from batchmax.sources.parquet_source import Source
from batchmax.sources.parts import Part

ONE_LABEL = (
    "every row has exactly one label; if the rows have one class each, write its index to a column of integers, "
    "for --activation softmax"
)
"""The warning about multi-label rows that may not be any."""


@dataclass(frozen=True, eq=False)
class Result:
    """The results of a chunk: the rows to write, and the rejected rows.

    For sequences, these are the rows that end with the chunk; ``completed`` then has the tokens of matrices, which are
    written before the row group ends.
    """

    batch: pa.RecordBatch
    rejects: pa.RecordBatch | None = None
    completed: CompletedRows | None = None


class Stage(ABC):
    """Computes the rows to write from each chunk, and counts them.

    Parameters
    ----------
    source
        The source of the chunks. Its job has the output columns, and the condition on the counts.
    progress
        Progress callbacks, for warnings.
    out
        Where the results go, for errors.

    Attributes
    ----------
    tally, warnings
        The counts and warnings so far, or of the current part.
    """

    command: ClassVar[str]
    """The command whose stage this is, for the metadata of the output."""

    def __init__(self, source: Source, progress: Progress, out: str) -> None:
        self.tally = Tally()
        self.warnings: list[str] = []
        self._source = source
        self._progress = progress
        self._out = out
        self._earlier_parts = Tally()
        condition = source.job.options.fail_if
        self._gate = None if condition is None else Gate(condition, SCORE_FIGURES)

    @abstractmethod
    def compute(self, chunk: Chunk, buffers: Buffers) -> Result:
        """Compute the rows of a chunk, handle bad ones, and count them."""

    def __call__(self, chunk: Chunk, buffers: Buffers) -> Result:
        """Compute the rows of a chunk.

        Raises
        ------
        GateError
            The condition is true whatever the remaining rows are.
        """
        result = self.compute(chunk, buffers)
        if self._gate is not None:
            tallies = self._earlier_parts, self.tally
            rows = quantity(sum(one.rows for one in tallies), "row")
            counts = {name: sum(getattr(one, name) for one in tallies) for name in ("bad_rows", "infinite_losses")}
            if self._gate.is_decided(counts):
                raise GateError(
                    f"--fail-if {self._gate.condition!r} is true after {rows}",
                    where=self._out,
                    remedy="the run was stopped and nothing is written; fix the input, or change the condition",
                )
        return result

    def begin(self, part: Part) -> None:
        """Start counting the rows of a part."""
        del part
        self._earlier_parts = Tally.merged([self._earlier_parts, self.tally])
        self.tally, self.warnings = Tally(), []

    def gather(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Set the counts to the sum over all parts, added in their order."""
        self.warnings = []

        def tallies() -> Iterator[Tally]:
            for state in states:
                self.warnings += state["warnings"]
                yield Tally.restored(state["tally"])

        self.tally = Tally.merged(tallies())

    def state(self) -> dict[str, Any]:
        """Return the counts so far, or of the current part, as JSON values."""
        return {"tally": self.tally.state(), "warnings": list(self.warnings)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue counting from a state."""
        self.tally = Tally.restored(state["tally"])
        self.warnings = list(state["warnings"])

    def warn(self, text: str) -> None:
        """Report a warning, and add it to the summary."""
        self.warnings.append(text)
        self._progress.warn(text)

    def late_warnings(self) -> list[str]:
        """Return the warnings that are known only at the end."""
        job, found = self._source.job, []
        activation = ACTIVATIONS[job.options.activation_name]
        if rows := infinite_losses(self.tally.infinite_losses, "row" if job.nesting is None else "token"):
            why = f"a class of the label has {'logit -inf' if activation.is_log_linear else 'probability 0'}"
            why += "" if activation.is_distribution else ", or another class has probability 1"
            found.append(f"{rows}, because {why}; the mean loss is not defined")
        if job.label is not None and job.label.kind in LABEL_SETS and self.tally.one_label == self.tally.judged > 0:
            found.append(ONE_LABEL)
        return found

    def summary(self) -> ScoreSummary:
        """Return the summary of what was counted, as it is stored in the output."""
        source, job = self._source, self._source.job
        summary = ScoreSummary(
            n_classes=job.n_classes,
            files=[file.path for file in source.files],
            bytes_read=source.size or 0,
            unified=list(source.unified),
            warnings=[*self.warnings, *self.late_warnings()],
            notes=list(job.notes),
            version=__version__,
        )
        has_hits = job.label is not None and job.label.has_class
        summary.count(self.tally, has_hits=has_hits, is_nested=job.nesting is not None)
        return summary

    def final_summary(self) -> ScoreSummary:
        """Return the summary with all warnings, and report the late ones."""
        for text in self.late_warnings():
            self._progress.warn(text)
        summary = self.summary()
        summary.warnings[:0] = self._source.warnings  # not in the output: they name paths
        return summary

    def failure(self, summary: ScoreSummary) -> str:
        """Return why the condition is true for a summary; an empty string if it isn't, or there is none."""
        if self._gate is None:
            return ""
        return self._gate.failure(summary.metrics(has_labels=self._source.job.label is not None))
