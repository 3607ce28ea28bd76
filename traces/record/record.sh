#!/usr/bin/env bash
# Records DMA translation in a Debian guest on QEMU's emulated IOMMU: traces both, imports the
# traces into one Parquet file and verifies that. See --help and docs/recording.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=traces/record/lib.sh
. "$here/lib.sh"

help() {
    cat <<'HELP'
record.sh -o OUT.parquet [OPTION]...

Boots a Debian kernel in QEMU with an emulated IOMMU, runs a workload in it, and writes
  OUT.parquet         the trace, imported and verified
  OUT.qemu.log.zst    QEMU's log: every translation with its IOTLB label
  OUT.ftrace.txt.zst  the guest's ftrace: maps, unmaps, invalidations

  --iommu vtd|amdvi|smmuv3|virtio   the IOMMU (vtd)
  --workload fio|iperf3|both|dd     the work (fio)
  --fio 'OPTIONS'      fio's (--ioengine=libaio --rw=randread --bs=4k --iodepth=32)
  --iperf3 'OPTIONS'   iperf3's (-R, that is, receive)
  --seconds N          of the work, on the guest's clock; dd: 8 N MiB each way with each size (3)
  --devices LIST       of nvme, e1000e, virtio-net, separated by commas
                       (nvme for fio and dd, e1000e for iperf3, nvme,e1000e for both)
  --unmap strict|lazy  (strict)
  --caching-mode on|off  VT-d only; on makes the guest strict (off)
  --kernel SERIES      6.1, 6.12 or a package's name (6.1; 6.12 for virtio)
  --events 'LIST'      ftrace events, SYSTEM or SYSTEM/NAME (iommu intel_iommu)
  --collect ftrace|trace-cmd|perf   also record with this tool: OUT.trace.dat, OUT.perf.data (ftrace)
  --accel auto|kvm|tcg (auto: KVM if a guest really runs with it)
  --cpus N             of the guest (2)
  --memory MIB         of the guest (2048)
  --buffer KIB         of the guest's trace, per CPU (100000)
  --limit SECONDS      at most for the guest to run (900)
  --cache DIR          keep downloaded packages there, for the next run
  --ioasim FILE        the program (built from this checkout)
  --help

Exit codes: 1 failed or something differs, 2 usage, 3 this machine cannot (packages, rights, --limit).

Installs QEMU and small tools with apt-get where they are missing (as root). Everything else
is unpacked into a temporary folder.
HELP
}

iommu=vtd workload=fio seconds=3 devices='' unmap=strict caching=off series='' accel=auto cpus=2 memory=2048
fio_options='--ioengine=libaio --rw=randread --bs=4k --iodepth=32' iperf3_options=-R
events='iommu intel_iommu' collect=ftrace buffer=100000 limit=900 cache='' ioasim='' output=''
while [[ $# -gt 0 ]]; do
    case $1 in
    --help | -h)
        help
        exit
        ;;
    -o | --iommu | --workload | --fio | --iperf3 | --seconds | --devices | --unmap | --caching-mode | --kernel | --events | \
        --collect | --accel | --cpus | --memory | --buffer | --limit | --cache | --ioasim)
        need_value "$@"
        ;;
    *) usage "unknown option '$1'" ;;
    esac
    case $1 in
    --iommu) iommu=$2 ;;
    --devices) devices=$2 ;;
    --unmap) unmap=$2 ;;
    --caching-mode) caching=$2 ;;
    --events) events=$2 ;;
    --collect) collect=$2 ;;
    --cpus) cpus=$2 ;;
    --buffer) buffer=$2 ;;
    *) common_option "$1" "$2" ;;
    esac
    shift 2
done

one_of --iommu "$iommu" vtd amdvi smmuv3 virtio
one_of --workload "$workload" fio iperf3 both dd
one_of --unmap "$unmap" strict lazy
one_of --caching-mode "$caching" on off
one_of --collect "$collect" ftrace trace-cmd perf
one_of --accel "$accel" auto kvm tcg
need_number --seconds "$seconds"
need_number --cpus "$cpus"
need_number --memory "$memory"
need_number --buffer "$buffer"
need_number --limit "$limit"
[[ $caching == off || $iommu == vtd ]] || usage "--caching-mode is VT-d's"
if [[ -z $devices ]]; then
    case $workload in
    fio | dd) devices=nvme ;;
    iperf3) devices=e1000e ;;
    both) devices=nvme,e1000e ;;
    esac
fi
begin_output

# 1. Programs on this machine.
arch=amd64
[[ $iommu == smmuv3 ]] && arch=arm64
case $arch in
amd64) tools=(qemu-system-x86) ;;
arm64) tools=(qemu-system-arm) ;;
esac
[[ $workload == fio || $workload == dd ]] || tools+=(iperf3)
install_tools "${tools[@]}"
find_ioasim

# 2. The guest's kernel and programs, unpacked.
private_apt "$arch"
[[ -n $series ]] || series=$([[ $iommu == virtio ]] && echo 6.12 || echo 6.1)
package=$(kernel_package "$arch" "$series")
fetch_kernel "$work/kernel" "$package"
case $iommu in
vtd) option=INTEL_IOMMU ;;
amdvi) option=AMD_IOMMU ;;
smmuv3) option=ARM_SMMU_V3 ;;
virtio) option=VIRTIO_IOMMU ;;
esac
kernel_has "$work/kernel" "$option" ||
    fail "the kernel $release is built without CONFIG_$option; choose another with --kernel (6.12 has it)"
packages=(busybox-static)
[[ $workload == fio || $workload == both ]] && packages+=(fio)
[[ $workload == iperf3 || $workload == both ]] && packages+=(iperf3)
[[ $collect == trace-cmd ]] && packages+=(trace-cmd)
[[ $collect == perf ]] && packages+=(linux-perf)
unpack_programs "$work/programs" "${packages[@]}"

# 3. The guest's initramfs.
root=$work/root
base_root "$root" "$work/programs"
add_init "$root" guest-init
modules=()
[[ $iommu == virtio ]] && modules+=(virtio_pci virtio_iommu)
modules+=(virtio_pci virtio_blk)
[[ $devices == *nvme* ]] && modules+=(nvme)
[[ $devices == *e1000e* ]] && modules+=(e1000e)
[[ $devices == *virtio-net* ]] && modules+=(virtio_net)
add_modules "$root" "$work/kernel" "${modules[@]}"
for program in fio iperf3 trace-cmd; do
    [[ " ${packages[*]} " == *" $program "* ]] || continue
    add_program "$root" "$work/programs" "/usr/bin/$program"
done
[[ $collect != perf ]] || add_program "$root" "$work/programs" /usr/bin/perf

# 4. The machine.
port=$((20000 + RANDOM % 20000))
machine_options=() cards='' slot=0
for device in ${devices//,/ }; do
    slot=$((slot + 1))
    address=$(printf '0x%x' $slot)
    pci=$(printf '0000:00:%02x.0' $slot)
    network=10.0.$((slot + 1))
    case $device in
    nvme)
        machine_options+=(-blockdev "null-co,node-name=n$slot,size=1073741824,read-zeroes=on"
            -device "nvme,drive=n$slot,serial=recorder$slot,max_ioqpairs=4,addr=$address")
        ;;
    e1000e)
        machine_options+=(-netdev "user,id=u$slot,net=$network.0/24" -device "e1000e,netdev=u$slot,addr=$address")
        cards+="$pci=$network.15 "
        ;;
    virtio-net)
        machine_options+=(-netdev "user,id=u$slot,net=$network.0/24"
            -device "virtio-net-pci,netdev=u$slot,iommu_platform=on,disable-legacy=on,ats=off,addr=$address")
        cards+="$pci=$network.15 "
        ;;
    *) usage "--devices knows nvme, e1000e and virtio-net, not '$device'" ;;
    esac
done
case $workload in
fio | dd | both) [[ $devices == *nvme* ]] || usage "the workload $workload needs nvme in --devices" ;;
esac
case $workload in
iperf3 | both) [[ -n $cards ]] || usage "the workload $workload needs e1000e or virtio-net in --devices" ;;
esac
strict=$([[ $unmap == strict ]] && echo 1 || echo 0)
append="$quick iommu.passthrough=0 iommu.strict=$strict"
case $iommu in
vtd)
    machine_options+=(-device "intel-iommu,caching-mode=$caching")
    append+=" intel_iommu=on"
    traced=("${vtd_events[@]}")
    preset='qemu-vtd-7.2'
    ;;
amdvi)
    machine_options+=(-device amd-iommu)
    append+=" amd_iommu=on iommu=nopt"
    traced=('amdvi_*')
    preset='qemu-amdvi-7.2'
    ;;
smmuv3)
    traced=('smmu*')
    preset='qemu-smmuv3-7.2'
    ;;
virtio)
    machine_options+=(-device "virtio-iommu-pci,addr=0x1d")
    traced=('virtio_iommu_*')
    preset=passthrough
    ;;
esac
trace_options "${traced[@]}"

write_settings "$root" <<SETTINGS
WORKLOAD='$workload'
FIO='$fio_options --time_based --runtime=$seconds --size=1g'
IPERF3='$iperf3_options -t $seconds'
DD_KIB=$((seconds * 8192))
CARDS='$cards'
PORT=$port
EVENTS='$events'
COLLECT='$collect'
TRACE_CMD_OPTIONS='${TRACE_CMD_OPTIONS:-}'
BUFFER_KB=$buffer
SETTINGS
pack "$root" "$work/initramfs.img"
truncate -s 4G "$work/recording.disk"

case $arch in
amd64)
    x86_machine "$work/programs"
    append+=" console=ttyS0 $no_timer_check"
    ;;
arm64)
    [[ $accel != kvm || $(uname -m) == aarch64 ]] || usage "an Arm guest runs with KVM on an Arm machine only"
    accel=tcg
    qemu=(qemu-system-aarch64 -accel 'tcg,thread=multi' -cpu cortex-a72 -machine 'virt,iommu=smmuv3,gic-version=3')
    append+=" console=ttyAMA0"
    ;;
esac
[[ -z $cards ]] || serve_iperf3 $port

# 5. The recording.
say "recording: $iommu, $workload ($devices), $unmap, Linux $release, QEMU with $accel"
began=$SECONDS
run_machine guest "$limit" "${qemu[@]}" -smp "$cpus" -m "$memory" -nodefaults -nographic -no-reboot -serial stdio \
    -kernel "$kernel" -initrd "$work/initramfs.img" -append "$append" "${machine_options[@]}" \
    -drive "file=$work/recording.disk,format=raw,if=none,id=recording" -device virtio-blk-pci,drive=recording,addr=0x1e \
    -msg timestamp=on "${trace[@]}" -D "$work/qemu.log"
say "the guest ran for $((SECONDS - began)) s"
unpack_recording
gzip -dc "$work/out/ftrace.txt.gz" >"$work/ftrace.txt"
grep '^events lost' "$work/guest.console" >&2 && say "raise --buffer to keep all of them"

# 6. The trace.
keep "$work/qemu.log" "$stem.qemu.log.zst"
case $collect in
ftrace) keep "$work/ftrace.txt" "$stem.ftrace.txt.zst" ;;
trace-cmd)
    mv "$work/out/trace.dat" "$stem.trace.dat"
    say "kept $stem.trace.dat"
    ;;
perf)
    mv "$work/out/perf.data" "$stem.perf.data"
    say "kept $stem.perf.data"
    ;;
esac
import=("$stem.qemu.log.zst")
# A log of virtio-iommu has the guest's maps itself.
[[ $collect == ftrace && $iommu != virtio ]] && import+=(--guest-ftrace "$stem.ftrace.txt.zst")
"$ioasim" trace import "${import[@]}" -o "$output"

# 7. Its labels and outputs against a model of this IOMMU.
"$ioasim" replay "$output" -c "$preset" --verify
say "verified: $output agrees with $preset"
