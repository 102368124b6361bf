# What anvil/run, anvil/test and .ci/run share: saying things, timing stages, and installing what is missing.
# POSIX sh. Sourced, with $root set to the project's folder.
# shellcheck shell=sh

FOUNDRY=1.7.1
NEXTEST=0.9.143
CARGO_DENY=0.20.2
RUST_MINOR=95

tools=$root/.tools
PATH=$tools/bin:$PATH:$HOME/.cargo/bin
export PATH

say() { printf '%s\n' "== $*"; }

# Ends the script with one sentence.
die() {
    printf '%s\n' "$(basename "$0"): $*" >&2
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# --- stages -------------------------------------------------------------------------------------------------------------
# stage NAME MINUTES: begins a stage with a budget and ends the one before; `stages_end` ends the last and prints them all.

stage_name=''
stages=''
stages_started=$(date +%s)

stage() {
    stage_close
    stage_name=$1
    stage_budget=$2
    stage_started=$(date +%s)
    say "$stage_name (budget: $stage_budget min)"
}

stage_close() {
    [ -n "$stage_name" ] || return 0
    stage_line=$(printf '%-34s %5s min of %s' "$stage_name" "$(minutes_since "$stage_started")" "$stage_budget")
    stages="$stages$stage_line
"
    stage_name=''
}

stages_end() {
    stage_close
    say "minutes per stage"
    printf '%s' "$stages"
    printf '%-34s %5s min\n' "in all" "$(minutes_since "$stages_started")"
}

minutes_since() {
    elapsed=$(($(date +%s) - $1))
    printf '%d.%d' $((elapsed / 60)) $((elapsed % 60 / 6))
}

# --- what the machine needs -------------------------------------------------------------------------------------------------

# Any of these files.
any_file() {
    for file in "$@"; do
        [ -e "$file" ] && return 0
    done
    return 1
}

has_postgres() {
    has initdb || any_file /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb \
        /opt/homebrew/opt/postgresql*/bin/initdb /usr/local/opt/postgresql*/bin/initdb
}

has_softhsm() {
    any_file /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so /usr/lib64/pkcs11/libsofthsm2.so \
        /opt/homebrew/lib/softhsm/libsofthsm2.so /usr/local/lib/softhsm/libsofthsm2.so
}

# Packages of the system: $missing gets their Debian names, $reasons what they are for.
find_missing() {
    missing=''
    reasons=''
    need has_postgres 'postgresql' 'the PostgreSQL server (each stack runs a private one)'
    need has_softhsm 'softhsm2' 'SoftHSM2 (the HSM that holds the keys)'
    need 'has cc' 'gcc libc6-dev' 'a C compiler (for libsecp256k1 and aws-lc)'
    need 'has curl' 'curl' 'curl (sends the demo intent)'
    has_anvil || need 'has npm' 'npm' 'npm (brings anvil, the local chain)'
    [ -n "$for_tests" ] || return 0
    need has_python 'python3-venv' 'Python 3.11 or later with venv (existing clients run in it)'
    need has_pgbouncer 'pgbouncer' 'pgbouncer (in front of Postgres; its own service stays off)'
    need has_nginx 'nginx' 'nginx (a gateway before the daemon; its own service stays off)'
}

has_python() { python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

has_pgbouncer() { any_file /usr/sbin/pgbouncer /usr/bin/pgbouncer /opt/homebrew/bin/pgbouncer; }

has_nginx() { has nginx || any_file /usr/sbin/nginx /opt/homebrew/bin/nginx /usr/local/bin/nginx; }

need() {
    $1 && return 0
    missing="$missing $2"
    reasons="$reasons
   - $3"
}

install_system() {
    find_missing
    [ -n "$missing" ] || return 0
    say "this machine lacks:$reasons"
    if has apt-get; then
        install_debian
    elif has brew; then
        die "please run \`brew install postgresql@17 softhsm node curl python nginx pgbouncer\` (and \`xcode-select --install\` for the compiler), then this again"
    else
        die "please install the above with your system's package manager (on Debian:$missing), then run this again"
    fi
    find_missing
    [ -z "$missing" ] || die "still missing after the installation:$missing"
}

install_debian() {
    as_root=''
    if [ "$(id -u)" -ne 0 ]; then
        has sudo || die "installing$missing needs root and there is no sudo: install them, then run this again"
        as_root=sudo
    fi
    say "installing with apt-get${as_root:+ (by sudo)}:$missing"
    $as_root apt-get -qq update || say "apt-get update failed; going on with the package lists that are there"
    case $missing in
    *pgbouncer*)
        # The package would start a pooler of its own, which nobody here uses.
        masked=/etc/systemd/system/pgbouncer.service
        [ ! -d "${masked%/*}" ] || [ -e "$masked" ] || [ -L "$masked" ] || $as_root ln -s /dev/null "$masked"
        ;;
    esac
    case $missing in
    *nginx*)
        missing=$(printf '%s' "$missing" | sed 's/ nginx//')
        install_nginx
        ;;
    esac
    case $missing in
    '') ;;
    *postgresql*)
        # The package would make and start a cluster of its own, which nobody here uses.
        apt_install postgresql-common
        without_cluster=/etc/postgresql-common/createcluster.d/zz-intentd.conf
        $as_root mkdir -p "${without_cluster%/*}"
        echo 'create_main_cluster = false' | $as_root tee "$without_cluster" >/dev/null
        # shellcheck disable=SC2086 # a list of words
        apt_install $missing
        $as_root rm -f "$without_cluster"
        ;;
    *)
        # shellcheck disable=SC2086 # a list of words
        apt_install $missing
        ;;
    esac
}

# The package would start a service of its own, now and with the machine, which nobody here uses.
install_nginx() {
    no_services=/usr/sbin/policy-rc.d
    own=''
    if ! any_file "$no_services"; then
        own=yes
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$no_services" >/dev/null
        $as_root chmod +x "$no_services"
    fi
    installed=yes
    (apt_install nginx) || installed=''
    [ -z "$own" ] || $as_root rm -f "$no_services"
    [ -n "$installed" ] || exit 1
    $as_root update-rc.d nginx disable >"$tools/apt.log" 2>&1 ||
        say "could not keep nginx from starting with this machine: \`update-rc.d nginx disable\` said $(cat "$tools/apt.log")"
}

apt_install() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@" \
        >"$tools/apt.log" 2>&1 || {
        tail -n 20 "$tools/apt.log" >&2
        die "apt-get could not install $*"
    }
}

check_rust() {
    has cargo || die "Rust is not installed: get it from https://rustup.rs (1.$RUST_MINOR or later), then run this again"
    rust=$(rustc --version | sed -n 's/^rustc 1\.\([0-9]*\).*/\1/p')
    [ "${rust:-0}" -ge "$RUST_MINOR" ] || die "Rust 1.$RUST_MINOR or later is needed and this is $(rustc --version): run \`rustup update\`"
}

# --- tools of the project's own, in .tools/ ------------------------------------------------------------------------------

# The npm package with a Foundry tool's real binary for this system. (`@foundry-rs/anvil` itself is a node script around it, and an
# older npm leaves out the binary because of the node version that the script asks for.)
foundry_package() {
    case $(uname -s) in Darwin) os=darwin ;; *) os=linux ;; esac
    case $(uname -m) in arm64 | aarch64) arch=arm64 ;; *) arch=amd64 ;; esac
    printf '%s' "@foundry-rs/$1-$os-$arch"
}

foundry_binary() { printf '%s' "$tools/node_modules/$(foundry_package "$1")/bin/$1"; }

has_anvil() { [ -n "${INTENTD_ANVIL_BIN-}" ] || { [ -x "$(foundry_binary anvil)" ] && [ -x "$(foundry_binary cast)" ]; }; }

install_anvil() {
    has_anvil && return 0
    say "installing anvil and cast $FOUNDRY from npm into .tools/"
    npm install --prefix "$tools" --ignore-scripts --no-audit --no-fund --loglevel=error \
        "$(foundry_package anvil)@$FOUNDRY" "$(foundry_package cast)@$FOUNDRY" >"$tools/npm.log" 2>&1 || {
        tail -n 20 "$tools/npm.log" >&2
        die "npm could not install anvil: see above, or install Foundry yourself and name its binary in INTENTD_ANVIL_BIN"
    }
    has_anvil || die "there is no anvil for $(uname -sm) in npm: install Foundry and name its binary in INTENTD_ANVIL_BIN"
}

# The clients that the tests run, with everything that they need, as tests/clients/requirements.txt has it.
install_clients() {
    wanted=$root/tests/clients/requirements.txt
    installed=$tools/venv/requirements.txt
    # Its programs begin with the path of their folder: a clone that was moved needs them anew.
    cmp -s "$wanted" "$installed" && "$tools/venv/bin/pip" --version >/dev/null 2>&1 && return 0
    say "installing existing clients (Python) from PyPI into .tools/venv/"
    python3 -m venv --clear "$tools/venv" || die "python3 cannot make a virtual environment in .tools/venv/"
    "$tools/venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r "$wanted" \
        >"$tools/pip.log" 2>&1 || {
        tail -n 20 "$tools/pip.log" >&2
        die "pip could not install tests/clients/requirements.txt: see above"
    }
    cp "$wanted" "$installed"
}

# cargo_tool NAME VERSION [ARGUMENT…]: a cargo subcommand, built without optimisation because it runs for seconds.
cargo_tool() {
    has "$1" && return 0
    say "installing $1 $2 with cargo into .tools/ (once, some minutes)"
    tool=$1
    version=$2
    shift 2
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=256 \
        CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_STRIP=none \
        cargo install --quiet --locked --root "$tools" "$tool@$version" "$@" ||
        die "cargo could not install $tool $version"
}

# Everything that building and running needs.
for_tests=''
install_missing() {
    mkdir -p "$tools"
    install_system
    check_rust
    install_anvil
}

# … and what the tests need beside it.
install_missing_for_tests() {
    for_tests=yes
    install_missing
    install_clients
}
