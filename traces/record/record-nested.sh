#!/usr/bin/env bash
# Records software nesting at all its levels: a guest in a guest whose device is assigned with
# vfio-pci through an emulated VT-d in caching mode. See --help and docs/recording.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=traces/record/lib.sh
. "$here/lib.sh"

help() {
    cat <<'HELP'
record-nested.sh -o OUT.parquet [OPTION]...

Boots a hypervisor (a Debian guest on QEMU's VT-d), and in it a guest whose NVMe or network
device is assigned through vfio-pci and a second VT-d in caching mode. Writes OUT.parquet, the
bundle imported and verified, and what it was made of:
  OUT.guest.ftrace.txt.zst       the guest's maps, unmaps and invalidations
  OUT.vmm.qemu.log.zst           the VMM: invalidations, shadow operations
  OUT.hypervisor.ftrace.txt.zst  the hypervisor's maps: parent table and shadow
  OUT.host.qemu.log.zst          the physical IOMMU: the device's accesses

  --workload dd|fio|iperf3  the work; iperf3 assigns an e1000e instead of the NVMe (dd)
  --fio 'OPTIONS'      fio's (--ioengine=libaio --rw=randread --bs=4k --iodepth=8)
  --iperf3 'OPTIONS'   iperf3's (-R, that is, receive)
  --seconds N          how much work: dd moves N MiB each way with each size, fio does N thousand
                       requests, iperf3 runs N seconds of the inner guest's clock (2)
  --kernel SERIES      of both guests: 6.1 or a package's name (6.1)
  --accel auto|kvm|tcg of the outer machine; the inner one is emulated (auto)
  --memory MIB         of the inner guest (512)
  --limit SECONDS      at most for all (3600)
  --cache DIR          keep downloaded packages there, for the next run
  --ioasim FILE        the program (built from this checkout)
  --help

Exit codes: 1 failed or something differs, 2 usage, 3 this machine cannot (packages, rights, --limit).

Emulation in emulation is slow: 5 to 15 minutes.
HELP
}

workload=dd seconds=2 series=6.1 accel=auto memory=512 limit=3600 cache='' ioasim='' output=''
fio_options='--ioengine=libaio --rw=randread --bs=4k --iodepth=8' iperf3_options=-R
while [[ $# -gt 0 ]]; do
    case $1 in
    --help | -h)
        help
        exit
        ;;
    -o | --workload | --fio | --iperf3 | --seconds | --kernel | --accel | --memory | --limit | --cache | --ioasim)
        need_value "$@"
        common_option "$1" "$2"
        ;;
    *) usage "unknown option '$1'" ;;
    esac
    shift 2
done
one_of --workload "$workload" dd fio iperf3
one_of --accel "$accel" auto kvm tcg
need_number --seconds "$seconds"
need_number --memory "$memory"
need_number --limit "$limit"
begin_output

# 1. Programs on this machine. The VMM in the outer guest is this machine's QEMU.
[[ $(dpkg --print-architecture) == amd64 ]] || fail "copies this machine's QEMU into the guest; run it on amd64"
tools=(qemu-system-x86)
[[ $workload == iperf3 ]] && tools+=(iperf3)
install_tools "${tools[@]}"
find_ioasim

# 2. The kernel of both guests and their programs, unpacked.
private_apt amd64
package=$(kernel_package amd64 "$series")
fetch_kernel "$work/kernel" "$package"
packages=(busybox-static)
[[ $workload == dd ]] || packages+=("$workload")
unpack_programs "$work/programs" "${packages[@]}"

# 3. The inner guest's initramfs.
case $workload in
iperf3)
    driver=e1000e port=$((20000 + RANDOM % 20000))
    cards='0000:00:01.0=10.0.2.15'
    device_options=(-netdev "user,id=u1,net=10.0.2.0/24" -device "e1000e,netdev=u1,addr=0x1")
    ;;
*)
    driver=nvme port=0
    cards=''
    device_options=(-blockdev "null-co,node-name=n1,size=1073741824,read-zeroes=on"
        -device "nvme,drive=n1,serial=recorder1,max_ioqpairs=2,addr=0x1")
    ;;
esac
# What takes fio minutes in a guest this slow and is of no use here: to calibrate a clock, to keep
# a map of blocks, to take the time of each request.
fio_light='--thread --norandommap --clocksource=clock_gettime --gtod_reduce=1'
inner=$work/inner
base_root "$inner" "$work/programs"
add_init "$inner" guest-init
add_modules "$inner" "$work/kernel" virtio_pci virtio_blk "$driver"
[[ $workload == dd ]] || add_program "$inner" "$work/programs" "/usr/bin/$workload"
write_settings "$inner" <<SETTINGS
WORKLOAD='$workload'
FIO='--number_ios=$((seconds * 1000)) --size=1g $fio_light $fio_options'
IPERF3='$iperf3_options -t $seconds'
DD_KIB=$((seconds * 1024))
CARDS='$cards'
PORT=$port
EVENTS='iommu intel_iommu'
COLLECT=ftrace
BUFFER_KB=20000
SETTINGS

# 4. The outer guest's: with QEMU, its firmware, and the inner guest.
root=$work/root
base_root "$root" "$work/programs"
add_init "$root" nested-init
add_modules "$root" "$work/kernel" virtio_pci virtio_blk vfio_pci vfio_iommu_type1
add_program "$root" "" /usr/bin/qemu-system-x86_64
# Debian's QEMU loads its translator as a module.
accelerator=$(find /usr/lib -name accel-tcg-x86_64.so | head -n 1)
[[ -n $accelerator ]] && add_program "$root" "" "$accelerator"
mkdir -p "$root/firmware" "$root/inner"
for name in bios-256k.bin kvmvapic.bin linuxboot_dma.bin; do
    file=$(find /usr/share/seabios /usr/share/qemu -name $name 2>/dev/null | head -n 1)
    [[ -n $file ]] || fail "QEMU's firmware $name is missing; apt-get install --reinstall qemu-system-data seabios"
    cp "$file" "$root/firmware/"
done
cp "$kernel" "$root/inner/kernel"
pack "$inner" "$root/inner/initramfs.img"
trace_options 'vtd_inv_desc*' 'vtd_page_walk*' 'vtd_replay*' vtd_as_unmap_whole vtd_switch_address_space \
    vtd_context_cache_reset vtd_dmar_enable 'vtd_iotlb_cc_*' vfio_iommu_map_notify 'vfio_listener*'
write_settings "$root" <<SETTINGS
DEVICE=0000:00:01.0
EVENTS='iommu intel_iommu'
BUFFER_KB=100000
MODULE_DIR='${accelerator%/*}'
INNER_CPU=max
INNER_MEMORY=$memory
INNER_APPEND='$quick $no_timer_check console=ttyS0 iommu.passthrough=0 intel_iommu=on'
INNER_TRACE='${trace[*]}'
SETTINGS
pack "$root" "$work/initramfs.img"
truncate -s 4G "$work/recording.disk"

# 5. The recording.
x86_machine "$work/programs"
[[ $workload == iperf3 ]] && serve_iperf3 $port
trace_options "${vtd_events[@]}"
say "recording: nested, $workload ($driver), Linux $release, QEMU with $accel; this takes minutes"
began=$SECONDS
run_machine outer "$limit" "${qemu[@]}" -device intel-iommu,caching-mode=off \
    -smp 2 -m $((memory * 2 + 3072)) -nodefaults -nographic -no-reboot -serial stdio -kernel "$kernel" -initrd "$work/initramfs.img" \
    -append "$quick $no_timer_check console=ttyS0 iommu.passthrough=0 iommu.strict=1 intel_iommu=on" "${device_options[@]}" \
    -drive "file=$work/recording.disk,format=raw,if=none,id=recording" -device virtio-blk-pci,drive=recording,addr=0x1e \
    -msg timestamp=on "${trace[@]}" -D "$work/host.log"
say "the guests ran for $((SECONDS - began)) s"
unpack_recording
gzip -dc "$work/out/ftrace.txt.gz" >"$work/hypervisor.txt"
gzip -dc "$work/out/inner/ftrace.txt.gz" >"$work/guest.txt"
gzip -dc "$work/out/vmm.log.gz" >"$work/vmm.log"
if grep -h '^events lost' "$work/outer.console" "$work/out/inner.console" >&2; then
    fail "the guests' trace buffers were too small for this; take less --seconds"
fi

# 6. The trace, and its shadow operations, labels and outputs against models of both VT-ds.
keep "$work/guest.txt" "$stem.guest.ftrace.txt.zst"
keep "$work/vmm.log" "$stem.vmm.qemu.log.zst"
keep "$work/hypervisor.txt" "$stem.hypervisor.ftrace.txt.zst"
keep "$work/host.log" "$stem.host.qemu.log.zst"
"$ioasim" trace import --host "$stem.host.qemu.log.zst" --vmm "$stem.vmm.qemu.log.zst" \
    --guest-ftrace "$stem.guest.ftrace.txt.zst" --hypervisor-ftrace "$stem.hypervisor.ftrace.txt.zst" -o "$output"
"$ioasim" replay "$output" -c sw-nested-invalidate --verify
say "verified: $output agrees with sw-nested-invalidate"
