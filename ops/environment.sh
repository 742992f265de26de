# What ops/run and ops/test share: Debian packages, the virtual environment, the build.
# To be sourced by bash with `root` set to the checkout. Every step looks first and does
# nothing when its result is there already; what it does goes to a log shown on failure.

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1
venv=$root/.venv
say() { printf '%s\n' "$*" >&2; }

# quietly WHAT COMMAND...: run it; only if it fails, say so and show its output.
quietly() {
    local what=$1 log code
    shift
    log=$(mktemp)
    if "$@" >"$log" 2>&1 </dev/null; then
        rm -f "$log"
        return 0
    else
        code=$?
    fi
    tail -n 60 "$log" >&2
    rm -f "$log"
    say "pptpcon: $what failed (exit code $code, output above)"
    return "$code"
}

# found PROBE: a command, or an absolute path that may hold wildcards.
found() {
    case $1 in
        /*) compgen -G "$1" >/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

# Debian starts a daemon when its package is installed, and at each boot. A PPTP server or
# a Prometheus that nobody asked for must not come of running tests, so: a policy-rc.d that
# says no, for as long as apt runs and only where there is none, and no start at boot.
apt_install() {
    local policy=/usr/sbin/policy-rc.d made='' code=0 service
    if [ ! -e "$policy" ] && [ ! -L "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made=yes
        # shellcheck disable=SC2064
        trap "rm -f $policy" EXIT
        trap 'exit 130' INT TERM HUP
    fi
    apt-get -o DPkg::Lock::Timeout=300 -q update &&
        apt-get -o DPkg::Lock::Timeout=300 -q install -y --no-install-recommends "$@" || code=$?
    if [ -n "$made" ]; then
        rm -f "$policy"
        trap - EXIT INT TERM HUP
    fi
    for service in "$@"; do
        case $service in
            # a unit, an init script or both, as the package has it
            pptpd | prometheus | prometheus-alertmanager | openvpn | freeradius | snmpd | wide-dhcpv6-client)
                ! command -v systemctl >/dev/null || systemctl -q disable "$service" || true
                ! command -v update-rc.d >/dev/null || update-rc.d "$service" disable || true
                ;;
        esac
    done
    return "$code"
}

# packages PACKAGE=PROBE...: install those whose probe is not found.
packages() {
    local pair missing=()
    for pair in "$@"; do
        case " ${missing[*]} " in *" ${pair%%=*} "*) continue ;; esac
        found "${pair#*=}" || missing+=("${pair%%=*}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "pptpcon: not installed: ${missing[*]} (as root: apt-get install ${missing[*]})"
        return 77
    fi
    say "installing ${missing[*]}"
    DEBIAN_FRONTEND=noninteractive quietly "apt-get install ${missing[*]}" \
        apt_install "${missing[@]}"
}

# A Python that can make environments and compile extensions; prints its own path, since
# what stands on PATH may be a wrapper.
find_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11 python3.14 /usr/bin/python3; do
        command -v "$name" >/dev/null || continue
        "$name" -I -c '
import os, sys, sysconfig
import ensurepip, venv
header = os.path.join(sysconfig.get_path("include"), "Python.h")
if sys.version_info < (3, 11) or not os.path.exists(header):
    sys.exit(1)
print(getattr(sys, "_base_executable", None) or sys.executable)
' 2>/dev/null && return 0
    done
    return 1
}

# venv_good: it is there, belongs to this folder (environments do not survive a move) and runs.
venv_good() {
    [ -x "$venv/bin/python" ] && "$venv/bin/python" -I -c '
import os, sys, sysconfig
header = os.path.join(sysconfig.get_path("include"), "Python.h")
moved = not os.path.samefile(sys.prefix, sys.argv[1])
sys.exit(moved or sys.version_info < (3, 11) or not os.path.exists(header))
' "$venv" 2>/dev/null && [ -x "$venv/bin/pip" ] && "$venv/bin/pip" --version >/dev/null 2>&1
}

digest() { { "$venv/bin/python" -VV; printf '%s\n' "$root"; cat -- "$@"; } | sha256sum; }
stamped() { [ "$(cat "$venv/stamp-$1" 2>/dev/null)" = "$2" ]; }
stamp() { printf '%s\n' "$2" >"$venv/stamp-$1"; }

# requirements WORDS...: the list at that place in pyproject.toml
requirements() {
    "$venv/bin/python" -I -c '
import sys, tomllib
with open(sys.argv[1], "rb") as f:
    found = tomllib.load(f)
for word in sys.argv[2:]:
    found = found[word]
print(*found, sep="\n")
' "$root/pyproject.toml" "$@"
}

# pip_list WORDS...: install that list
pip_list() {
    local found
    mapfile -t found < <(requirements "$@")
    "$venv/bin/python" -m pip install -q --upgrade pip "${found[@]}"
}

# From inside the checkout, so that its name may hold anything (brackets would be extras).
pip_checkout() (cd "$root" && "$venv/bin/python" -m pip install -q --no-build-isolation -e .)
compile() (cd "$root" && "$venv/bin/python" setup.py -q build_ext --inplace)

# prepare run|test|fuzz: the environment, with what this purpose needs, and the compiled modules.
prepare() {
    local purpose=$1 python wanted sources
    # one at a time for a checkout: the folder itself is the lock
    exec {lock}<"$root"
    flock "$lock"
    if ! venv_good; then
        if ! python=$(find_python); then
            packages python3=/none python3-venv=/none python3-dev=/none || return
            python=$(find_python) || {
                say "pptpcon: no Python >= 3.11 with its headers and venv found"
                return 69
            }
        fi
        say "making .venv with $python"
        rm -rf -- "$venv"
        quietly "python -m venv" "$python" -m venv -- "$venv" || return
    fi
    wanted=$(digest "$root/pyproject.toml")
    if ! stamped tools "$wanted"; then
        say "installing the build tools in .venv"
        quietly "pip install" pip_list build-system requires || return
        stamp tools "$wanted"
    fi
    sources=$(digest "$root/setup.py" "$root"/fastpath/*.pyx "$root"/fastpath/*.pxd \
        "$root"/fastpath/*.h)
    if ! stamped run "$wanted" || [ ! -x "$venv/bin/pptpcon" ]; then
        say "compiling fastpath, installing pptpcon and what it needs in .venv"
        quietly "pip install" pip_checkout || return
        stamp run "$wanted"
        stamp build "$sources"
    elif ! stamped build "$sources" || ! compgen -G "$root/fastpath/layout.*.so" >/dev/null; then
        say "compiling fastpath"
        quietly "the compilation" compile || return
        stamp build "$sources"
    elif [ -z "$(find "$root/fastpath" -name '*.so' -newer "$venv/stamp-build")" ]; then
        # Built here from the same octets, whose times git may have changed since: who looks at
        # times (setup.py, tests/bench/build.py) must not take it for a stale build.
        touch -c -- "$root"/fastpath/*.so
        stamp build "$sources"
    fi
    if [ "$purpose" != run ] && ! stamped test "$wanted"; then
        say "installing the tools of the tests in .venv"
        quietly "pip install" pip_list project optional-dependencies test || return
        stamp test "$wanted"
    fi
    if [ "$purpose" = fuzz ] && ! stamped fuzz "$wanted"; then
        say "installing the fuzzer in .venv"
        quietly "pip install" pip_list project optional-dependencies fuzz || return
        stamp fuzz "$wanted"
    fi
    exec {lock}<&-
}

RUN_PACKAGES=(
    gcc=gcc
    libc6-dev=/usr/include/stdlib.h
    iproute2=ip
    nftables=nft
    'libnftables1=/usr/lib/*/libnftables.so.1'
)
TEST_PACKAGES=(
    user-mode-linux=linux.uml
    pptp-linux=pptp
    pptpd=pptpd
    ppp=pppd
    wide-dhcpv6-client=dhcp6c
    ppp-dev=/usr/include/pppd/pppd.h
    iperf3=iperf3
    iputils-ping=ping
    procps=sysctl
    kmod=modprobe
    tcpdump=tcpdump
    tshark=tshark
    groff-base=groff
    systemd=systemd-analyze
    systemd-container=systemd-nspawn
    prometheus=promtool
    prometheus-alertmanager=amtool
    openvpn=openvpn
    freeradius=freeradius
    freeradius-utils=radclient
    eapoltest=eapol_test
    openssl=openssl
    iptables=iptables-save
    qemu-system-x86=qemu-system-x86_64
    busybox-static=busybox
    curl=curl
    jq=jq
    git=git
    chromium=chromium
    snmpd=snmpd
    snmp=snmpwalk
)
# Of the bench in the lab's guest.
BENCH_PACKAGES=(
    qemu-system-x86=qemu-system-x86_64
    busybox-static=busybox
)
