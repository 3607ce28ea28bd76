# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables shared with the caller
# What record.sh and record-nested.sh share: packages, kernels, initramfs, QEMU.
# Sourced; the caller sets -euo pipefail, `here` (this folder), `output` (the trace to write) and `cache`
# (a folder that keeps downloads from run to run, or nothing).

# What QEMU's VT-d is to log of a device's accesses.
vtd_events=('vtd_inv_desc*' 'vtd_iotlb_*' 'vtd_dmar_*' vtd_translate_pt vtd_switch_address_space vtd_context_cache_reset)

# Kernel parameters of all guests. What only costs time under emulation is off.
# For x86 guests $no_timer_check, too: their kernel panics if timer interrupts do
# not come in time while it boots, which happens when the host has other work.
no_timer_check=no_timer_check
quick='panic=-1 quiet nowatchdog audit=0 mitigations=off random.trust_cpu=on'

say() { printf '%s\n' "$*" >&2; }

# fail MESSAGE: ends the script. Messages name the remedy.
fail() {
    say "${0##*/}: $*"
    exit 1
}

# cannot MESSAGE: the same where this machine is the obstacle: packages, rights, speed.
cannot() {
    say "${0##*/}: $*"
    exit 3
}

# usage MESSAGE: a mistake on the command line.
usage() {
    say "${0##*/}: $*; see ${0##*/} --help"
    exit 2
}

# need_value ARGUMENT...: an option's value follows it.
need_value() {
    [[ $# -ge 2 ]] || usage "$1 needs a value"
}

# common_option NAME VALUE: sets what an option that all scripts have stands for.
common_option() {
    case $1 in
    -o) output=$2 ;;
    --workload) workload=$2 ;;
    --fio) fio_options=$2 ;;
    --iperf3) iperf3_options=$2 ;;
    --seconds) seconds=$2 ;;
    --kernel) series=$2 ;;
    --accel) accel=$2 ;;
    --memory) memory=$2 ;;
    --limit) limit=$2 ;;
    --cache) cache=$2 ;;
    --ioasim) ioasim=$2 ;;
    esac
}

# need_number NAME VALUE
need_number() {
    [[ $2 =~ ^[1-9][0-9]*$ ]] || usage "$1 takes a whole number above 0, not '$2'"
}

# one_of OPTION VALUE ALLOWED...
one_of() {
    local option=$1 value=$2 allowed
    shift 2
    for allowed in "$@"; do [[ $value == "$allowed" ]] && return; done
    usage "$option takes one of $*, not '$value'"
}
# begin_output: the folders of the output, of the work and of the cache; they go, and what runs ends,
# however the script ends. Uses `output` and `cache`; sets `stem` and `work`.
begin_output() {
    [[ $output == *.parquet ]] || usage "name the trace with -o OUT.parquet"
    stem=${output%.parquet}
    mkdir -p "$(dirname "$output")"
    [[ -z $cache ]] || { mkdir -p "$cache" && cache=$(cd "$cache" && pwd); }
    work=$(mktemp -d)
    machine='' server=''
    trap cleanup EXIT
    trap 'exit 130' INT TERM
}

cleanup() {
    [[ -z $machine ]] || kill "$machine" 2>/dev/null || true
    [[ -z $server ]] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}

# install_tools PACKAGE...: installs these and the tools of the scripts where they are missing.
install_tools() {
    local want=() package program
    for package in "$@" cpio kmod zstd binutils xz-utils; do
        case $package in
        qemu-system-x86) program='qemu-system-x86_64' ;;
        qemu-system-arm) program='qemu-system-aarch64' ;;
        kmod) program=depmod ;;
        binutils) program=readelf ;;
        xz-utils) program=xz ;;
        *) program=$package ;;
        esac
        # depmod lies in /sbin, which is not on everybody's PATH.
        PATH=$PATH:/sbin:/usr/sbin command -v "$program" >/dev/null || want+=("$package")
    done
    [[ ${#want[@]} -gt 0 ]] || return 0
    command -v apt-get >/dev/null ||
        cannot "needs ${want[*]}; install them (this script knows Debian's apt-get only)"
    [[ $(id -u) == 0 ]] || cannot "needs ${want[*]}; run it as root, or: apt-get install ${want[*]}"
    say "installing ${want[*]}"
    apt-get update -qq >&2 || say "the package lists could not be renewed; trying with the old ones"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${want[@]}" \
        >"$work/apt.log" 2>&1 ||
        cannot "apt-get could not install ${want[*]}: $(tail -n 1 "$work/apt.log")"
}

# private_apt ARCH: package lists and downloads of an architecture in a folder of our own. The
# system's packages, foreign architectures and lists stay as they are. Sets `apt_options`.
private_apt() {
    local arch=$1 home=${cache:-$work}/apt-$1
    mkdir -p "$home/state/lists/partial" "$home/cache/archives/partial"
    apt_options=(-qq -o "Dir::State=$home/state" -o Dir::State::status=/dev/null
        -o "Dir::Cache=$home/cache" -o "APT::Architecture=$arch" -o "APT::Architectures=$arch"
        -o APT::Sandbox::User=root -o Debug::NoLocking=1)
    archives=$home/cache/archives
    if [[ ! -e $home/lists-are-here ]]; then
        say "fetching the package lists of $arch"
        # Other sources than Debian's may lack the architecture.
        apt-get "${apt_options[@]}" update >"$work/apt.log" 2>&1 || true
        apt-cache "${apt_options[@]}" show busybox-static >/dev/null 2>&1 ||
            cannot "no package lists of $arch: $(tail -n 1 "$work/apt.log"); check /etc/apt/sources.list and the network"
        touch "$home/lists-are-here"
    fi
}

# unpack_programs DIR PACKAGE...: fetches packages and all that they depend on and unpacks them
# into DIR; nothing is installed.
unpack_programs() {
    local dir=$1 package deb
    shift
    mkdir -p "$dir"
    say "fetching $*"
    apt-get "${apt_options[@]}" install -s --no-install-recommends "$@" >"$work/closure" 2>"$work/apt.log" ||
        cannot "apt-get knows no $*: $(tail -n 1 "$work/apt.log")"
    apt-get "${apt_options[@]}" install -y --no-install-recommends --download-only "$@" \
        >"$work/apt.log" 2>&1 ||
        cannot "apt-get could not fetch $*: $(tail -n 1 "$work/apt.log")"
    while read -r package; do
        deb=$(find "$archives" -name "${package}_*.deb" | sort -V | tail -n 1)
        [[ -n $deb ]] || fail "apt-get fetched no $package; empty ${cache:-$work} and try again"
        dpkg -x "$deb" "$dir"
    done < <(sed -nE 's/^Inst ([^ ]+) .*/\1/p' "$work/closure")
}

# kernel_package ARCH SERIES: the newest Debian kernel of a series (6.1, 6.12), or SERIES itself if it
# names a package.
kernel_package() {
    local arch=$1 series=$2 found
    if [[ $series == linux-image-* ]]; then
        echo "$series"
        return
    fi
    found=$(apt-cache "${apt_options[@]}" search --names-only "^linux-image-${series//./\\.}[.+][^ ]*-$arch\$" |
        cut -d' ' -f1 | grep -vE -- '-(rt|cloud|dbg|unsigned)' | sort -V | tail -n 1)
    [[ -n $found ]] || cannot "no package linux-image-$series* of $arch; name one with --kernel linux-image-..."
    echo "$found"
}

# fetch_kernel DIR PACKAGE: unpacks a kernel and its modules into DIR. Sets `kernel` (the file) and
# `release` (what uname -r will say).
fetch_kernel() {
    local dir=$1 package=$2 deb
    say "fetching $package"
    apt-get "${apt_options[@]}" install -y --no-install-recommends --download-only "$package" \
        >"$work/apt.log" 2>&1 ||
        cannot "apt-get could not fetch $package: $(tail -n 1 "$work/apt.log")"
    deb=$(find "$archives" -name "${package}_*.deb" | sort -V | tail -n 1)
    mkdir -p "$dir"
    dpkg -x "$deb" "$dir"
    kernel=$(echo "$dir"/boot/vmlinuz-*)
    release=${kernel##*/vmlinuz-}
    PATH=$PATH:/sbin:/usr/sbin depmod -b "$dir" "$release"
}

# kernel_has DIR OPTION: true if the kernel in DIR has CONFIG_OPTION, built in or as a module.
kernel_has() {
    grep -q "^CONFIG_$2=[ym]" "$1"/boot/config-*
}

# add_modules ROOT KERNELDIR MODULE...: copies modules and what they need into ROOT, in the order in
# which they are to be loaded, which ROOT/modules.list names.
add_modules() {
    local root=$1 dir=$2 module file name
    shift 2
    mkdir -p "$root/modules"
    touch "$root/modules.list"
    for module in "$@"; do
        PATH=$PATH:/sbin:/usr/sbin modprobe -d "$dir" -S "$release" --show-depends "$module" \
            >"$work/depends" 2>/dev/null || fail "the kernel $release has no module $module"
        while read -r what file _; do
            [[ $what == insmod ]] || continue
            name=${file##*/}
            name=${name%.xz}
            grep -qx "$name" "$root/modules.list" && continue
            if [[ $file == *.xz ]]; then
                xz -dc "$file" >"$root/modules/$name"
            else
                cp "$file" "$root/modules/$name"
            fi
            echo "$name" >>"$root/modules.list"
        done <"$work/depends"
    done
}

# add_program ROOT TREE PATH: copies a program from an unpacked TREE into ROOT with the libraries that
# it names, and theirs. No program of the guest's architecture is run.
add_program() {
    local root=$1 tree=$2 queue=("$3") seen=' ' file library at index
    index=$work/libraries-of${tree//\//-}
    [[ -e $index ]] || (cd "$tree/" && find lib usr/lib -name '*.so*' \( -type f -o -type l \)) >"$index"
    while [[ ${#queue[@]} -gt 0 ]]; do
        file=${queue[0]}
        queue=("${queue[@]:1}")
        [[ $seen == *" $file "* ]] && continue
        seen+="$file "
        [[ -e $tree$file ]] || fail "$file is in none of the packages fetched"
        mkdir -p "$root${file%/*}"
        cp -L "$tree$file" "$root$file"
        while read -r library; do
            if [[ $library == /* ]]; then
                at=$library
            else
                at=$(awk -v name="/$library" 'substr($0, length - length(name) + 1) == name { print; exit }' "$index")
                [[ -n $at ]] ||
                    fail "no package has the library $library, which $file needs"
                at=/$at
            fi
            queue+=("$at")
        done < <(readelf -W -l -d "$tree$file" 2>/dev/null |
            sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p; s/.*interpreter: (.*)\]/\1/p')
    done
}

# base_root ROOT TREE: the skeleton of an initramfs: busybox and its names, folders, what guests share.
base_root() {
    local root=$1 tree=$2
    mkdir -p "$root"/{bin,dev,proc,sys,tmp,etc,out,root}
    cp "$tree/bin/busybox" "$root/bin/busybox"
    cp "$here/guest-lib" "$root/guest-lib"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo '127.0.0.1 localhost' >"$root/etc/hosts"
}

# write_settings ROOT: what the guest is to do, from standard input.
write_settings() {
    cat >"$1/settings"
}

# add_init ROOT FILE: the program that an initramfs starts.
add_init() {
    cp "$here/$2" "$1/init"
    chmod +x "$1/init"
}

# serve_iperf3 PORT: the other end of iperf3, on the loopback, which user-mode networking reaches.
serve_iperf3() {
    iperf3 -s -p "$1" -B 127.0.0.1 >"$work/iperf3.log" 2>&1 &
    server=$!
}

# pack ROOT FILE: an initramfs. gzip -1: unpacking is emulated, too.
pack() {
    (cd "$1" && find . -print0 | cpio -0 -oH newc --quiet -R 0:0) | gzip -1 >"$2"
}

# kvm_works: true if a guest really runs with KVM. Its device may open where guests do not run (the
# machine is a guest itself and its hypervisor refuses registers, or firmware hangs), so a kernel is
# booted for a moment. Uses `kernel`, and TREE with busybox.
kvm_works() {
    local tree=$1 root=$work/kvm-root
    [[ -w /dev/kvm ]] || return 1
    mkdir -p "$root/bin" "$root/dev"
    cp "$tree/bin/busybox" "$root/bin/busybox"
    cat >"$root/init" <<'INIT'
#!/bin/busybox sh
echo a guest runs >/dev/console
/bin/busybox reboot -f
INIT
    chmod +x "$root/init"
    pack "$root" "$work/kvm.img"
    # In a shell of its own, which does not tell if QEMU aborts.
    (timeout 20 qemu-system-x86_64 -accel kvm -cpu host -machine q35,kernel-irqchip=split -m 512M \
        -nodefaults -nographic -no-reboot -serial stdio -kernel "$kernel" -initrd "$work/kvm.img" \
        -append "console=ttyS0 panic=-1 quiet" </dev/null >"$work/kvm.log" 2>&1 || true) 2>/dev/null
    grep -q "a guest runs" "$work/kvm.log"
}

# x86_machine TREE: sets `qemu`, the beginning of an x86 machine's command line, and `accel` if it is
# auto. TREE has busybox.
x86_machine() {
    if [[ $accel == auto ]]; then
        accel=tcg
        kvm_works "$1" && accel=kvm
    fi
    case $accel in
    kvm) qemu=(qemu-system-x86_64 -accel kvm -cpu host) ;;
    tcg) qemu=(qemu-system-x86_64 -accel 'tcg,thread=multi' -cpu max) ;;
    esac
    qemu+=(-machine 'q35,kernel-irqchip=split')
}

# trace_options EVENT...: sets `trace`, QEMU's options that trace these.
trace_options() {
    local event
    trace=()
    for event in "$@"; do trace+=(-trace "$event"); done
}

# run_machine NAME SECONDS QEMU...: runs a machine to its end, its console in $work/NAME.console.
run_machine() {
    local name=$1 limit=$2 status=0 console=$work/$1.console
    shift 2
    # The group is ended as a whole when this script is.
    nice timeout --foreground "$limit" "$@" </dev/null >"$console" 2>&1 &
    machine=$!
    wait "$machine" || status=$?
    machine=
    if ! grep -q "recording complete" "$console"; then
        say "--- the end of the console:"
        tail -n 15 "$console" >&2
        [[ $status == 124 ]] && cannot "the guest did not end within $limit s; give more with --limit"
        fail "the guest ended without its recording (QEMU's status $status)"
    fi
}

# unpack_recording: what the guest wrote to the recording's disk, into $work/out.
unpack_recording() {
    mkdir "$work/out"
    tar -xf "$work/recording.disk" -C "$work/out"
}

# find_ioasim: sets `ioasim`, built here unless given.
find_ioasim() {
    if [[ -z ${ioasim:-} ]]; then
        command -v cargo >/dev/null ||
            fail "needs ioasim; name it with --ioasim FILE, or install a Rust toolchain to build it"
        say "building ioasim"
        cargo build --release --locked --quiet --manifest-path "$here/../../Cargo.toml" >&2
        ioasim=$(cargo metadata --format-version 1 --no-deps --manifest-path "$here/../../Cargo.toml" |
            sed -E 's/.*"target_directory":"([^"]*)".*/\1/')/release/ioasim
    fi
    "$ioasim" --version >/dev/null || fail "$ioasim does not run; name another with --ioasim FILE"
}

# keep FILE NAME: puts a file beside the output, compressed, whole or not at all.
keep() {
    zstd -q -10 --long=27 -T0 "$1" -o "$2.part"
    mv "$2.part" "$2"
    say "kept $2"
}
