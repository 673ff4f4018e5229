"""What every option of every command means for sequences, for ``tests/cli/test_sequence_commands.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Same:
    """The results are the same; ``rows`` are the options for rows if they differ."""

    words: str
    rows: str | None = None


@dataclass(frozen=True)
class Refused:
    """Sequences (``s``), rows (``r``) or both refuse the option."""

    words: str
    message: str
    kinds: str = "s"


@dataclass(frozen=True)
class Other:
    """Both accept the option, and the results aren't comparable; another test checks them."""

    words: str


READ = {
    "--logits": Same("--logits other"),
    "--n-classes": Same("--n-classes 3"),
    "--logits-dtype": Same("--logits bits --logits-dtype float32"),
    "--storage-option": Same("--storage-option region=x"),
}
LABELS = {
    "--label": Same("--label second"),
    "--label-format": Refused("--label-format khot", "these are not lists of integers", "sr"),
    "--classes": Same("--label name --classes a,b,c"),
    "--ignore-index": Same("--ignore-index 1 --on-bad-row null"),
    "--shift": Refused("--shift", "the rows aren't sequences", "r"),
}
SCALE = {
    "--temperature": Same("--temperature 2"),
    "--input": Same("--logits p --input probs"),
    "--beta": Same("--beta 0.5"),
    "--calibration": Same("--calibration {calibration.json}"),
}
LIMIT = {"--limit": Same("--limit 2", "--limit 4")}
LOUD = {"--quiet": Same("-q"), "--verbose": Same("-v"), "--json": Same("--json"), "--debug": Same("--debug")}
RUN = {"--threads": Same("--threads 1"), "--memory-limit": Same("--memory-limit 3GiB")}
BAD = {"--on-bad-row": Same("{bad} --on-bad-row null")}
METRICS = READ | LABELS | SCALE | LIMIT | LOUD | RUN | BAD
CARRIED = {"--columns": Same("--columns id,place"), "--exclude": Same("--exclude group,name")}

OPTIONS: dict[str, dict[str, Any]] = {
    "score": READ
    | LABELS
    | SCALE
    | LIMIT
    | LOUD
    | RUN
    | CARRIED
    | {
        "--bytes": Refused("--bytes size", "the rows aren't sequences", "r"),
        "--activation": Same("--activation taylor"),
        "--loss": Same("--activation sigmoid --loss mse"),
        "--outputs": Same(
            "--outputs probs,log_probs,loss,pred,confidence,margin,entropy,logsumexp,rank,correct,el2n,status"
        ),
        "--top-k": Same("--top-k 2"),
        "--decision": Refused("--decision {decision.json}", "decisions are made for single rows"),
        "--seed": Other("--outputs sample --seed 3"),
        "--class-weights": Same("--class-weights {weights.txt}"),
        "--pos-weight": Same("--activation sigmoid --pos-weight {weights.txt}"),
        "--label-smoothing": Same("--label-smoothing 0.1"),
        "--out": Same("-o {out}"),
        "--layout": Same("--layout fixed"),
        "--dtype": Same("--dtype float16"),
        "--prefix": Same("--prefix p_"),
        "--if-exists": Same("--if-exists overwrite"),
        "--shard": Other("-o {folder} --shard 0/2"),
        "--durability": Same("--durability none"),
        "--compression": Same("--compression zstd"),
        "--row-group-size": Same("--row-group-size 2"),
        "--on-bad-row": Same("{bad} --on-bad-row null"),
        "--rejects": Other("{bad} --on-bad-row drop --rejects {rejects}"),
        "--fail-if": Same("--fail-if 'mean_loss > 99'"),
        "--engine": Same("--engine local"),
        "--dry-run": Other("--dry-run"),
    },
    "inspect": READ
    | {name: LABELS[name] for name in ("--label", "--classes")}
    | {"--label-format": Other("--label-format khot")}
    | {"--ignore-index": Same("--ignore-index -100"), "--shift": Other("--shift")}
    | {name: SCALE[name] for name in ("--temperature", "--input", "--beta")}
    | LOUD,
    "show": READ
    | LABELS
    | {
        "--shift": Refused("--row 0 --token 0 --shift", "rows aren't sequences", "r"),
        "--ignore-index": Same("--ignore-index 1"),
        "--activation": Same("--row 2 --token 1 --activation sigmoid", "--row 5 --activation sigmoid"),
    }
    | SCALE
    | LOUD
    | {
        "--row": Same("--row 2 --token 1", "--row 5"),
        "--token": Refused("--row 2 --token 1", "aren't sequences", "r"),
        "--worst": Same("--worst 4"),
        "--values": Other("--values 1,2"),
        "--limit": Same("--worst 3 --limit 2", "--worst 3 --limit 4"),
        "--all": Same("--all"),
        "--alternatives": Same("--alternatives"),
        "--out": Same("--worst 3 -o {out}"),
        "--columns": Same("--worst 3 --columns id"),
        "--exclude": Same("--worst 3 --exclude group"),
        "--if-exists": Same("--worst 3 -o {out} --if-exists overwrite"),
        "--on-bad-row": Same("{bad} --worst 3 --on-bad-row null"),
        "--threads": Same("--worst 3 --threads 1"),
        "--memory-limit": Same("--worst 3 --memory-limit 3GiB"),
    },
    "evaluate": METRICS
    | {
        "--bytes": Refused("--bytes size", "the rows aren't sequences", "r"),
        "--activation": Same("--activation softmax"),
        "--sample-weight": Same("--sample-weight weight"),
        "--positive": Refused("--positive 1", "only one of two classes", "sr"),
        "--bins": Same("--bins 4"),
        "--top-k": Same("--top-k 1,2"),
        "--curves": Same("--curves binned"),
        "--max-fpr": Refused("--max-fpr 0.1", "needs a positive one", "sr"),
        "--curves-out": Same("--curves-out {out}"),
        "--confidence-level": Other("--confidence-level 0.9"),
        "--cluster": Same("--cluster group"),
        "--by": Same("--by group"),
        "--out": Same("--by group,id -o {out}"),
        "--if-exists": Same("-o {out} --if-exists overwrite"),
        "--fail-if": Same("--fail-if 'mean_loss > 99'"),
    },
    "calibrate": READ
    | LABELS
    | {"--input": Same("--logits p --input probs --holdout 0")}
    | LIMIT
    | LOUD
    | RUN
    | BAD
    | {
        "--activation": Same("--activation sigmoid"),
        "--method": Same("--method vector"),
        "--holdout": Other("--holdout 0.5"),
        "--seed": Other("--seed 1 --holdout 0.5"),
        "--bins": Same("--bins 4"),
        "--out": Same("-o {out}"),
        "--if-exists": Same("--if-exists overwrite"),
    },
    "decide": {
        name: Refused(words, "rows are sequences")
        for name, words in {
            "--logits": "--logits other --costs {costs.csv}",
            "--n-classes": "--n-classes 3",
            "--logits-dtype": "--logits bits --logits-dtype float32",
            "--storage-option": "--storage-option region=x",
            "--label": "--label second",
            "--classes": "--label name --classes a,b,c",
            "--ignore-index": "--ignore-index 1 --on-bad-row null",
            "--temperature": "--temperature 2",
            "--input": "--logits p --input probs",
            "--beta": "--beta 0.5",
            "--calibration": "--calibration {calibration.json}",
            "--limit": "--limit 4 --costs {costs.csv} --holdout 0",
            "--quiet": "-q",
            "--verbose": "-v",
            "--json": "--json",
            "--debug": "--debug",
            "--threads": "--threads 1",
            "--memory-limit": "--memory-limit 3GiB",
            "--on-bad-row": "{bad} --on-bad-row null",
            "--activation": "--activation softmax",
            "--cluster": "--cluster place --costs {costs.csv}",
            "--at": "--at accuracy>=0.01",
            "--confidence-level": "--confidence-level 0.5",
            "--by": "--by group",
            "--holdout": "--holdout 0.4",
            "--seed": "--seed 1",
            "--out": "-o {out}",
            "--if-exists": "--if-exists overwrite",
            "--costs": "--costs {costs.csv}",
            "--sample-weight": "--sample-weight weight --costs {costs.csv}",
        }.items()
    }
    | {
        "--maximize": Refused("--maximize f1", "needs a positive one", "sr"),
        "--positive": Refused("--positive 1", "only one of two classes", "sr"),
        "--label-format": LABELS["--label-format"],
        "--shift": Refused("--shift", "sequences", "sr"),
    },
    "compare": METRICS
    | {
        "--key": Same("--key id", "--key place"),
        "--labels-from": Same("--labels-from b"),
        "--activation": Same("--activation softmax"),
        "--logits-b": Same("--logits-b other"),
        "--input-b": Same("--logits-b p --input-b probs"),
        "--label-b": Same("--label-b second --labels-from a"),
        "--positive": Refused("--positive 1", "only one of two classes", "sr"),
        "--cluster": Same("--cluster group"),
        "--by": Same("--by group"),
        "--confidence-level": Same("--confidence-level 0.9"),
        "--worst": Same("--worst 3"),
        "--fail-if": Same("--fail-if 'mean_loss_a > 99'"),
    },
    "report": METRICS
    | CARRIED
    | {
        "--positive": Refused("--positive 1", "only one of two classes", "sr"),
        "--bins": Same("--bins 4"),
        "--by": Same("--by group"),
        "--row": Same("--row 1", "--row 3"),
        "--worst": Same("--worst 3"),
        "--out": Same("-o {out}"),
        "--title": Same("--title Tokens"),
        "--if-exists": Same("--if-exists overwrite"),
    },
    "verify": LOUD
    | {
        "--storage-option": READ["--storage-option"],
        "--logits": Same("--logits logits"),
        "--sample": Same("--sample 4"),
        "--seed": Same("--seed 2"),
    },
    "convert": {
        name: Refused(meaning.words, "sequences have only one layout")
        for name, meaning in (
            READ
            | LIMIT
            | LOUD
            | RUN
            | BAD
            | CARRIED
            | {
                "--out": Other("-o {out}"),
                "--layout": Other("--layout wide"),
                "--if-exists": Other("--if-exists overwrite"),
                "--durability": Other("--durability none"),
                "--compression": Other("--compression zstd"),
                "--row-group-size": Other("--row-group-size 2"),
                "--rejects": Other("{bad} --on-bad-row drop --rejects {rejects}"),
            }
        ).items()
    },
    "warmup": {},
    "completion": {},
    "guide": {},
}
"""The meaning of each option of each command for sequences. ``warmup``, ``completion`` and ``guide`` have no input."""
