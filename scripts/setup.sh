# Sourced by the scripts in this folder. Makes a virtual environment in the folder of pyproject.toml and installs
# batchmax into it, with one of its extras; returns at once if that has been done for the same pyproject.toml.
#
# VENV/.installed-EXTRA     what was installed: the folder's path (a moved environment is broken) and pyproject.toml
# VENV/.unfinished          exists while packages are installed; if it is found later, the environment is made again

ROOT=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)
VENV=$ROOT/.venv
VERSIONS=declared # or floor, the lowest that pyproject.toml allows, or newest, which may be pre-releases
WITHOUT=          # names of packages that are not installed, with commas between them

LOCK='
import fcntl, sys, time
seconds = 2
while seconds > 0:
    try:
        fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
        sys.exit()
    except BlockingIOError:
        time.sleep(0.1)
        seconds -= 0.1
print(f"batchmax: waiting for another process that is setting up {sys.argv[1]}", file=sys.stderr)
fcntl.flock(9, fcntl.LOCK_EX)
'

wanted() {
    printf '%s\n' "$ROOT" "$WITHOUT"
    [[ $VERSIONS != newest ]] || date +%F # new releases appear every day
    cat -- "$ROOT/pyproject.toml"
}

is_other_python() { # returns whether PYTHON names another interpreter than that of the environment
    local show='import sys; print(sys.base_prefix, sys.version)'
    [[ ${PYTHON:-} && "$("$PYTHON" -c "$show" 2>&1)" != "$("$VENV/bin/python" -c "$show" 2>&1)" ]]
}

is_installed() { # EXTRA
    [[ ! -e $VENV/.unfinished && -f $VENV/.installed-$1 ]] &&
        cmp -s -- "$VENV/.installed-$1" <(wanted) && ! is_other_python
}

fail() { # MESSAGE
    printf 'batchmax: error: %s\n' "$1" >&2
    exit 1
}

install() { # EXTRA
    local python=${PYTHON:-python3}
    command -v "$python" >/dev/null ||
        fail "no $python on the PATH; install Python 3.11 or later, or name it: PYTHON=/path/to/python3 $0"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Python 3.11 or later is needed, $python is $("$python" -V 2>&1); name another: PYTHON=python3.12 $0"
    # If two scripts start at once, the second waits here. Python takes the lock because macOS has no flock command.
    exec 9<"$ROOT/pyproject.toml"
    "$python" -c "$LOCK" "$VENV" || true
    if ! is_installed "$1"; then
        echo "batchmax: setting up $VENV ($1), once; this takes a minute or more" >&2
        if [[ -e $VENV/.unfinished ]] || is_other_python || ! "$VENV/bin/python" -m pip --version &>/dev/null; then
            "$python" -m venv --clear -- "$VENV" >&2 || fail "$python cannot make $VENV (see above)"
        fi
        touch -- "$VENV/.unfinished"
        (cd -- "$ROOT" && install_packages "$1") >&2 ||
            fail "the installation failed (see above); run $0 again, it starts afresh"
        wanted >"$VENV/.installed-$1"
        rm -- "$VENV/.unfinished"
    fi
    exec 9<&-
}

install_packages() { # EXTRA
    local pip=("$VENV/bin/python" -m pip install -qq --disable-pip-version-check)
    if [[ $VERSIONS == declared && ! $WITHOUT ]]; then
        "${pip[@]}" --editable ".[$1]"
        return
    fi
    "$VENV/bin/python" scripts/dependencies.py requirements "$1" --without "$WITHOUT" >"$VENV/requirements.txt" &&
        : >"$VENV/versions.txt" &&
        if [[ $VERSIONS != declared ]]; then "${pip[@]}" uv && install_resolved; fi &&
        "${pip[@]}" --editable . --requirement "$VENV/requirements.txt" --constraint "$VENV/versions.txt"
}

install_resolved() { # writes the versions of all packages but torch to VENV/versions.txt and installs them
    local uv=("$VENV/bin/uv" pip compile --quiet --upgrade --no-header --no-annotate --python "$VENV/bin/python")
    # Wheels only: a version from before this Python was released would have to be compiled.
    uv+=(--only-binary :all:)
    if [[ $VERSIONS == newest ]]; then
        uv+=(--prerelease allow)
    else
        uv+=(--resolution lowest-direct)
        # Those of batchmax's own dependencies come first, so that no package of the tests raises them.
        "${uv[@]}" --no-deps --extra insight --output-file "$VENV/own-versions.txt" pyproject.toml >/dev/null || return
        uv+=(--constraints "$VENV/own-versions.txt")
    fi
    # torch is left to pip, which may be configured to find a smaller build of it.
    echo 'torch; python_version < "3"' >"$VENV/without-torch.txt"
    "${uv[@]}" --overrides "$VENV/without-torch.txt" --output-file "$VENV/versions.txt" \
        pyproject.toml "$VENV/requirements.txt" >/dev/null &&
        "$VENV/bin/uv" pip install --quiet --python "$VENV/bin/python" --requirement "$VENV/versions.txt"
}

set_up() { # insight|test|check
    is_installed "$1" || install "$1"
}
