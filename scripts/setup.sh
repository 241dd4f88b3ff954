# Sourced by scripts/run and scripts/test: sets up .venv, system libraries and model files, then is quick.
#
#   setup run|dev    makes ROOT/.venv ready, with the tests' tools for dev; leaves through `exit` on failure
#
# Safe to repeat, to interrupt, and to start twice at once.

ROOT="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV="$ROOT/.venv"
PYTHON="$VENV/bin/python"
TORCH="torch==2.13.0"
MARKER="$VENV/visavis-setting-up"

# soname:package, as Debian and Ubuntu name them
LIBRARIES=(
    libGL.so.1:libgl1 libEGL.so.1:libegl1 libGLESv2.so.2:libgles2 libglib-2.0.so.0:libglib2.0-0
    libportaudio.so.2:libportaudio2
)

# a user's pip settings and environments must not lead the packages elsewhere
unset PYTHONHOME PYTHONPATH
export PYTHONNOUSERSITE=1 PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf '==> %s\n' "$*" >&2; }
fail() { printf 'visavis: %s\n' "$*" >&2; exit 1; }

# ---- apt

is_root() { [[ "$(id -u)" == 0 ]]; }
can_apt() { is_root && command -v apt-get >/dev/null; }

# dpkg's account of every package is noise; apt's errors come on the other stream
apt_run() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" </dev/null >/dev/null; }

apt_update() {
    [[ -z "${APT_UPDATED:-}" ]] || return 1
    say "apt: fetching the package lists"
    APT_UPDATED=1
    apt_run update
}

apt_install() {
    if ! compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null; then apt_update || return 1; fi
    apt_run install -y --no-install-recommends "$@" && return
    # the lists may be older than what the mirror has
    apt_update && apt_run install -y --no-install-recommends "$@"
}

# ---- Python

usable_python() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1
}

# Prints a Python of 3.11 to 3.13; one that can also make virtual environments when there is one.
find_python() {
    local name found=""
    for name in ${VISAVIS_PYTHON:+"$VISAVIS_PYTHON"} python3 python3.13 python3.12 python3.11 python; do
        usable_python "$name" || continue
        if "$name" -c 'import venv, ensurepip' >/dev/null 2>&1; then
            found="$name"
            break
        fi
        found="${found:-$name}"
    done
    [[ -n "$found" ]] && "$found" -c 'import sys; print(sys.executable)'
}

ensure_python() {
    local version
    BASE_PYTHON="$(find_python || true)"
    if [[ -z "$BASE_PYTHON" ]]; then
        if can_apt; then
            say "installing Python"
            apt_install python3 python3-venv || true
            BASE_PYTHON="$(find_python || true)"
        fi
        [[ -n "$BASE_PYTHON" ]] || fail "Python 3.11, 3.12 or 3.13 is needed;" \
            "type: sudo apt-get install python3 python3-venv (Debian 12 or Ubuntu 24.04 and newer have it)" \
            "or set VISAVIS_PYTHON to one"
    fi
    if ! "$BASE_PYTHON" -c 'import venv, ensurepip' >/dev/null 2>&1; then
        version="$("$BASE_PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
        if can_apt; then
            say "installing python$version-venv"
            apt_install "python$version-venv" || true
        fi
        "$BASE_PYTHON" -c 'import venv, ensurepip' >/dev/null 2>&1 ||
            fail "$BASE_PYTHON cannot make virtual environments; type: sudo apt-get install python$version-venv"
    fi
}

ensure_venv() {
    if [[ -e "$MARKER" ]]; then
        say "an earlier set-up was interrupted: starting afresh"
    elif usable_python "$PYTHON" && "$PYTHON" -m pip --version >/dev/null 2>&1; then
        return
    fi
    ensure_python
    say "making $VENV with $BASE_PYTHON"
    "$BASE_PYTHON" -m venv --clear "$VENV" || fail "cannot make $VENV; delete it and start again"
}

# pip's own progress bars where somebody sees them
pip_install() {
    local quiet="--quiet"
    [[ -t 2 ]] && quiet="--progress-bar=on"
    (cd -- "$ROOT" && "$PYTHON" -m pip install "$quiet" "$@") >&2 && return
    # pip has cleaned up after its own failure; only a killed pip leaves the marker
    rm -f "$MARKER"
    fail "cannot install $*; check the network and the free disk space, and start again"
}

install_packages() {
    touch "$MARKER"
    say "installing $TORCH (the first time this takes minutes)"
    pip_install "$TORCH"
    say "installing visavis and what it needs"
    pip_install -e "$1"
    rm -f "$MARKER"
}

# ---- how much that is

# Says before anything is fetched what it will take, and stops where it cannot fit. Silent once torch is there.
# Sums of the wheels for Linux x86_64 and of the files in them, with what Python compiles: docs/install.md.
tell_size() {
    local free_mb least_mb=2500 most_mb=9200
    local takes="downloads 3.1 GB and takes 6.1 GB of disk (with torch's CPU build 0.5 and 2.0 GB)"
    compgen -G "$VENV/lib/python3*/site-packages/torch/__init__.py" >/dev/null && return
    if [[ "$1" == dev ]]; then
        least_mb=3450 most_mb=10100
        takes="downloads 3.4 GB and takes 6.8 GB of disk (with torch's CPU build 0.7 and 2.8 GB)"
    fi
    free_mb="$(df -Pm -- "$ROOT" 2>/dev/null | awk 'NR == 2 { print $4 }')"
    [[ "$free_mb" =~ ^[0-9]+$ ]] || free_mb="$most_mb"
    ((free_mb >= least_mb)) || fail "the set-up $takes, and there are only $free_mb MB free in $ROOT;" \
        "free some space there, at least $least_mb MB, and start again"
    [[ -n "${CI:-}" ]] || say "the first set-up $takes"
    ((free_mb >= most_mb)) || say "there are $free_mb MB free in $ROOT, and while it installs it may need $most_mb;" \
        "torch's CPU build needs $least_mb: docs/install.md says how to have it"
}

# ---- system libraries

missing_libraries() {
    local known entry
    [[ "$(uname -s)" == Linux ]] || return 0
    known="$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null || true)"
    for entry in "${LIBRARIES[@]}"; do
        [[ "$known" == *"${entry%%:*} "* ]] || printf ' %s' "${entry##*:}"
    done
}

install_libraries() {
    local missing
    missing="$(missing_libraries)"
    [[ -n "$missing" ]] || return 0
    if can_apt; then
        say "installing system libraries:$missing"
        # shellcheck disable=SC2086  # a list of names
        apt_install $missing || say "apt could not install them"
        missing="$(missing_libraries)"
        [[ -n "$missing" ]] || return 0
    fi
    LIBRARY_COMMAND="sudo apt-get install$missing"
    say "system libraries are missing; type: $LIBRARY_COMMAND"
}

# Only what does not load without a missing library stops the set-up: without PortAudio there is no
# microphone, and everything else works.
check_libraries() {
    [[ -n "${LIBRARY_COMMAND:-}" ]] || return 0
    "$PYTHON" - 2>/dev/null <<'PYTHON' || [[ $? != 3 ]] || fail "visavis does not load without them; type: $LIBRARY_COMMAND"
import ctypes
import importlib.util
import sys
from pathlib import Path

try:
    import cv2

    spec = importlib.util.find_spec("mediapipe")
    library = Path(spec.origin).parent / "tasks" / "c" / "libmediapipe.so"
    if library.exists():
        ctypes.CDLL(str(library))
except (ImportError, OSError) as error:
    sys.exit(3 if "cannot open shared object" in str(error) else 0)
PYTHON
}

# The browser tests drive it; they skip, with this reason, where it is missing.
install_chromium() {
    local name
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" >/dev/null && return
    done
    if can_apt; then
        say "installing Chromium for the browser tests"
        apt_install chromium && return
    fi
    say "no Chromium: the browser tests will be skipped; to have them, type: sudo apt-get install chromium"
}

# The other browser; its tests skip, with this reason, where it is missing. Ubuntu has none that apt brings.
install_firefox() {
    local name
    for name in firefox-esr firefox; do
        command -v "$name" >/dev/null && return
    done
    if can_apt; then
        say "installing Firefox for the browser tests"
        apt_install firefox-esr && return
    fi
    say "no Firefox: its tests will be skipped; to have them, type: sudo apt-get install firefox-esr"
}

# Another maker's WHIP and WHEP client; its tests skip, with this reason, where it is missing.
install_gstreamer() {
    local packages="gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-nice"
    packages+=" python3-gi gir1.2-gst-plugins-bad-1.0"
    has_gstreamer && return
    if can_apt; then
        say "installing GStreamer for the tests of WHIP and WHEP"
        # shellcheck disable=SC2086  # a list of names
        apt_install $packages && return
    fi
    say "no GStreamer: its tests will be skipped; to have it, type: sudo apt-get install $packages"
}

has_gstreamer() { /usr/bin/python3 "$ROOT/tests/gstreamer_whip.py" 2>/dev/null | grep -q '"missing": \[\]'; }

# ---- all of it

# One line that changes when the set-up has to run again.
fingerprint() {
    local hash version
    hash="$(cat -- "$ROOT/pyproject.toml" "$ROOT/scripts/setup.sh" | cksum)" &&
        version="$("$PYTHON" -V 2>&1)" && printf '%s %s %s' "$hash" "$version" "$ROOT"
}

# A set-up for dev is one for run, too.
is_set_up() {
    local now stamp
    [[ -x "$PYTHON" && ! -e "$MARKER" ]] || return 1
    now="$(fingerprint)" || return 1
    for stamp in "$VENV/visavis-$1" "$VENV/visavis-dev"; do
        [[ -r "$stamp" && "$(<"$stamp")" == "$now" ]] && return
    done
    return 1
}

# Always checked: 0.1 s when they are there, and somebody may have emptied the cache.
fetch_models() {
    local report
    report="$(cd -- "$ROOT" && "$PYTHON" -m engines.model_files 2>&1)" || fail "$report"
}

setup() {
    local kind="$1" target="."
    [[ "$kind" == dev ]] && target=".[dev]"
    if ! is_set_up "$kind"; then
        # the folder itself is the lock: nothing to clean up, and it survives a new .venv
        exec 9<"$ROOT"
        if command -v flock >/dev/null && ! flock -n 9; then
            say "another set-up is running: waiting for it"
            flock 9
        fi
        if ! is_set_up "$kind"; then
            tell_size "$kind"
            install_libraries
            ensure_venv
            install_packages "$target"
            check_libraries
            if [[ "$kind" == dev ]]; then install_chromium; install_firefox; install_gstreamer; fi
            say "fetching the model files"
            fetch_models
            fingerprint >"$VENV/visavis-$kind"
            say "ready"
        fi
        exec 9<&-
    fi
    fetch_models
}
