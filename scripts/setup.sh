# Sourced by the scripts beside it. Makes .venv beside pyproject.toml and installs batchmax into it, with
# an extra when one is named; does nothing, quickly, when that was done for this very pyproject.toml.
#
# .venv/.installed-EXTRA     what was installed: the folder's path (a moved .venv is broken) and pyproject.toml
# .venv/.unfinished          there while an installation runs; found later, the .venv is made anew

ROOT=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)

wanted() {
    printf '%s\n' "$ROOT"
    cat -- "$ROOT/pyproject.toml"
}

is_installed() { # EXTRA
    [[ ! -e $ROOT/.venv/.unfinished && -f $ROOT/.venv/.installed-$1 ]] &&
        cmp -s -- "$ROOT/.venv/.installed-$1" <(wanted)
}

fail() { # MESSAGE
    printf 'batchmax: error: %s\n' "$1" >&2
    exit 1
}

install() { # EXTRA
    local python=${PYTHON:-python3} venv=$ROOT/.venv
    command -v "$python" >/dev/null ||
        fail "no $python on the PATH; install Python 3.11 or later, or name it: PYTHON=/path/to/python3 $0"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Python 3.11 or later is needed, $python is $("$python" -V 2>&1); name another: PYTHON=python3.12 $0"
    # Two first calls at once: the second waits here. Python takes the lock because macOS has no flock command.
    exec 9<"$ROOT/pyproject.toml"
    "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' || true
    if ! is_installed "$1"; then
        echo "batchmax: setting up $venv ($1), once; this takes a minute or more" >&2
        if [[ -e $venv/.unfinished ]] || ! "$venv/bin/python" -m pip --version &>/dev/null; then
            "$python" -m venv --clear -- "$venv" >&2 || fail "$python cannot make $venv (see above)"
        fi
        touch -- "$venv/.unfinished"
        (cd -- "$ROOT" && "$venv/bin/python" -m pip install -qq --disable-pip-version-check \
            --editable ".[$1]") >&2 ||
            fail "the installation failed (see above); run $0 again, it starts afresh"
        wanted >"$venv/.installed-$1"
        rm -- "$venv/.unfinished"
    fi
    exec 9<&-
}

set_up() { # insight|test|check
    is_installed "$1" || install "$1"
}
