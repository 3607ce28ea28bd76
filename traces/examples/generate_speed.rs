//! Measures the device generators, alone and with the writer of trace files.
//!
//! ```text
//! cargo run --release -p ioasim-traces --example generate_speed -- alone [KIND] [events=N] [runs=N]
//! cargo run --release -p ioasim-traces --example generate_speed -- file [KIND] [events=N] [runs=N]
//! cargo run --release -p ioasim-traces --example generate_speed -- print [KIND] [events=N] [seed=N]
//! ```
//! `alone` sums addresses and times and writes nothing; `file` writes a file to
//! a temporary directory; `print` prints a fingerprint of all columns, which
//! must not change when a generator becomes faster. `nic-mlx5` and
//! `nic-recycle` run without their warm-up unless `warm=PAGES` is given.

use std::error::Error;
use std::time::Instant;

use ioasim_traces::generate::{
    Control, DeviceKind, DeviceTrace, DmaOptions, Kernel, MapOnceOptions, Member, MixOptions,
    NicOptions, NvmeOptions, SvaOptions, Unmap, VfioBootOptions, device_to_file,
};

fn argument(name: &str, default: u64) -> u64 {
    let find = |a: String| a.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
    std::env::args().find_map(find).unwrap_or(default)
}

fn kinds() -> Vec<DeviceKind> {
    let warm_up = argument("warm", 0);
    let nic = |recycle| DeviceKind::Nic(NicOptions { warm_up, recycle, ..NicOptions::default() });
    let nvme = |block| DeviceKind::Nvme(NvmeOptions { block, ..NvmeOptions::default() });
    let sva = || DeviceKind::Sva(SvaOptions::default());
    let member = |tenants, device| Member { tenants, device };
    let members = vec![member(2, nic(0.0)), member(4, nvme(4096)), member(1, sva())];
    vec![
        nic(0.0),
        nic(0.95),
        nvme(4096),
        nvme(131_072),
        DeviceKind::MapOnce(MapOnceOptions::default()),
        DeviceKind::VfioBoot(VfioBootOptions::default()),
        sva(),
        DeviceKind::Mix(MixOptions { members }),
    ]
}

fn label(device: &DeviceKind) -> String {
    match device {
        DeviceKind::Nvme(o) if o.block != 4096 => format!("nvme-{}K", o.block >> 10),
        _ => device.name().to_string(),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let what = std::env::args().nth(1).unwrap_or_default();
    let only = std::env::args().nth(2).filter(|a| !a.contains('='));
    let (events, seed) = (argument("events", 4_000_000), argument("seed", 1));
    let dma = DmaOptions {
        caching_mode: argument("cm", 0) > 0,
        kernel: if argument("old", 0) > 0 { Kernel::V6_0 } else { Kernel::V6_12 },
        unmap: match argument("lazy", 0) {
            0 => Unmap::Strict,
            n => Unmap::Lazy { entries: 256, timeout_ns: 10_000_000, single: n > 1 },
        },
        cpus: argument("cpus", 8) as usize,
        ..DmaOptions::default()
    };
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("t.parquet");
    for device in kinds().into_iter().filter(|d| only.as_ref().is_none_or(|o| *o == label(d))) {
        let name = label(&device);
        let trace = DeviceTrace { device, dma, events, seed };
        let mut best = f64::INFINITY;
        let mut text = String::new();
        for _ in 0..if what == "print" { 1 } else { argument("runs", 3) } {
            let start = Instant::now();
            let mut made = 0u64;
            match what.as_str() {
                "alone" => {
                    let mut sum = 0u64;
                    trace.visit(&mut |e| {
                        made += 1;
                        sum = sum.wrapping_add(e.addr ^ e.time_ns);
                        Ok(())
                    })?;
                    text = format!("sum {sum:016x}");
                }
                "file" => {
                    let summary = device_to_file(&trace, &path, &mut Control::default())?;
                    made = summary.events;
                    let bytes = summary.file_bytes as f64 / made as f64;
                    text = format!("{bytes:.2} bytes/event");
                }
                "print" => {
                    let mut sum = 0u64;
                    let mut add =
                        |v: u64| sum = (sum ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (sum >> 29);
                    trace.visit(&mut |e| {
                        made += 1;
                        add(e.time_ns);
                        add(e.kind as u64 | u64::from(e.flags.0) << 32);
                        add(e.cpu as u64);
                        add(u64::from(e.domain.0) | u64::from(e.requester.0) << 32);
                        add(u64::from(e.pasid.0));
                        add(e.addr);
                        add(e.size);
                        add(e.out);
                        add(e.aux);
                        Ok(())
                    })?;
                    println!("{name} {made} {sum:016x}");
                    continue;
                }
                _ => return Err("alone, file or print".into()),
            }
            best = best.min(start.elapsed().as_nanos() as f64 / made as f64);
            text = format!("{made} events, {text}");
        }
        if what != "print" {
            println!("{name:12} {best:6.1} ns/event, {:5.1} M events/s; {text}", 1e3 / best);
        }
    }
    Ok(())
}
