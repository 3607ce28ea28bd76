//! Logs made by a small model of a guest, a device and QEMU's IOMMU, in every
//! mode, complete and damaged: what is imported must explain every label and
//! output, and where the guest's ftrace is complete the domains must be right.

mod import_common;

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;

use import_common::*;
use ioasim_events::{DomainId, Event, Flags, Kind};

/// A small generator of random numbers (splitmix64).
#[derive(Clone)]
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Strict,
    StrictCaching,
    Lazy,
}

#[derive(Clone, Copy)]
enum Style {
    Tid,
    Iso,
    Bare,
}

/// A mapped buffer.
#[derive(Clone, Copy)]
struct Buffer {
    domain: usize,
    iova: u64,
    pages: u64,
}

/// The recorded machine.
struct Machine {
    rng: Rng,
    mode: Mode,
    style: Style,
    domains: usize,
    cpus: u64,
    /// us since the start; the log's clock and the guest's begin elsewhere.
    now: u64,
    log: String,
    ftrace: String,
    recording: bool,
    table: HashMap<(usize, u64), u64>,
    iotlb: HashMap<(usize, u64), u64>,
    live: Vec<Buffer>,
    /// Unmapped, not yet flushed (lazy mode).
    queue: Vec<Buffer>,
    free: Vec<VecDeque<(u64, u64)>>,
    lowest: Vec<u64>,
    next_out: u64,
    /// Domain of each map and unmap written to the ftrace.
    truth: Vec<(bool, u64, u64, usize)>,
}

/// Domain ids and devices: one device per domain, and two share the last.
fn domain_id(d: usize) -> u32 {
    [3, 0x17, 0x4000, 0xffff][d]
}

fn device_of(d: usize, second: bool) -> u32 {
    [0x8, 0x10, 0x1f2, 0x308][d] + u32::from(second && d == 3)
}

impl Machine {
    fn new(seed: u64, mode: Mode, style: Style) -> Machine {
        let mut rng = Rng(seed);
        let domains = 2 + rng.below(3) as usize;
        Machine {
            cpus: 1 + rng.below(4),
            rng,
            mode,
            style,
            domains,
            now: 0,
            log: String::new(),
            ftrace: String::from("# tracer: nop\n#\n"),
            recording: false,
            table: HashMap::new(),
            iotlb: HashMap::new(),
            live: Vec::new(),
            queue: Vec::new(),
            free: vec![VecDeque::new(); domains],
            lowest: vec![0x1_0000_0000; domains],
            next_out: 0x1_0000_0000,
            truth: Vec::new(),
        }
    }

    fn tick(&mut self, most: u64) {
        self.now += 1 + self.rng.below(most);
    }

    fn log_line(&mut self, tid: u64, text: &str) {
        let (sec, us) = (1_795_404_603 + self.now / 1_000_000, self.now % 1_000_000);
        match self.style {
            Style::Tid => writeln!(self.log, "{tid}@{sec}.{us:06}:{text}"),
            Style::Iso => {
                // 1795404603 is 2026-11-23T03:30:03Z.
                let s = 3 * 3600 + 30 * 60 + 3 + self.now / 1_000_000;
                writeln!(
                    self.log,
                    "2026-11-23T{:02}:{:02}:{:02}.{us:06}Z {text}",
                    s / 3600,
                    s / 60 % 60,
                    s % 60
                )
            }
            Style::Bare => writeln!(self.log, "{text}"),
        }
        .unwrap();
    }

    fn ftrace_line(&mut self, cpu: u64, task: &str, text: &str) {
        if self.recording {
            let t = self.now + 7_654_321;
            let (sec, us) = (t / 1_000_000, t % 1_000_000);
            writeln!(self.ftrace, "{task:>16} [{cpu:03}] .N...  {sec:>5}.{us:06}: {text}").unwrap();
        }
    }

    /// The guest submits a descriptor and waits.
    #[allow(clippy::too_many_arguments, reason = "one argument per field of the line")]
    fn submit(
        &mut self,
        cpu: u64,
        task: &str,
        kind: &str,
        log_kind: &str,
        qw0: u64,
        qw1: u64,
        decoded: &str,
    ) {
        self.ftrace_line(cpu, task, &format!("qi_submit: {kind} dmar0: {qw0:#x} {qw1:#x} 0x0 0x0"));
        let late = if self.rng.chance(2) { 3_000 } else { 10 };
        self.tick(late);
        self.log_line(
            20 + cpu,
            &format!("vtd_inv_desc invalidate desc type {log_kind} high {qw1:#x} low {qw0:#x}"),
        );
        self.log_line(20 + cpu, decoded);
        self.log_line(
            20 + cpu,
            "vtd_inv_desc invalidate desc type wait high 0x100046004 low 0x200000025",
        );
    }

    fn invalidate(&mut self, cpu: u64, task: &str, b: &Buffer) {
        let am = b.pages.next_power_of_two().trailing_zeros();
        let (id, page) = (domain_id(b.domain), b.iova >> 12);
        let qw0 = u64::from(id) << 16 | 0xf2;
        self.submit(
            cpu,
            task,
            "iotlb_inv",
            "iotlb",
            qw0,
            b.iova | u64::from(am),
            &format!(
                "vtd_inv_desc_iotlb_pages iotlb invalidate domain {id:#x} addr {:#x} mask {am:#x}",
                b.iova
            ),
        );
        let mask = u64::from(if am >= 8 { 0u8 } else { !((1u8 << am) - 1) });
        let d = b.domain;
        self.iotlb.retain(|(dev, p), _| dev % 8 != d || (p & mask != page & mask && *p != page));
    }

    fn flush(&mut self, cpu: u64, task: &str, d: usize) {
        let id = domain_id(d);
        let decoded = format!("vtd_inv_desc_iotlb_domain iotlb invalidate whole domain {id:#x}");
        self.submit(cpu, task, "iotlb_inv", "iotlb", u64::from(id) << 16 | 0xe2, 0, &decoded);
        self.iotlb.retain(|(dev, _), _| dev % 8 != d);
        let flushed: Vec<Buffer> = self.queue.iter().filter(|b| b.domain == d).copied().collect();
        self.queue.retain(|b| b.domain != d);
        for b in flushed {
            self.free[d].push_back((b.iova, b.pages));
        }
    }

    fn interrupt_entry(&mut self) {
        let index = 1 + self.rng.below(30);
        let decoded = format!("vtd_inv_desc_iec granularity 0x1 index {index:#x} mask 0x0");
        self.submit(0, "kworker-7", "iec_inv", "iec", index << 32 | 0x14, 0, &decoded);
    }

    fn map(&mut self, d: usize, cpu: u64, task: &str) {
        let pages = [1, 1, 1, 2, 4, 16][self.rng.below(6) as usize];
        let reused = self.free[d].iter().position(|f| f.1 == pages);
        let iova = match reused {
            Some(i) => self.free[d].remove(i).unwrap().0,
            None => {
                self.lowest[d] = (self.lowest[d] - (pages << 12)) & !((pages << 12) - 1);
                self.lowest[d]
            }
        };
        // Host pages come around again, so that equal mappings exist.
        if self.rng.chance(3) {
            self.next_out = 0x1_0000_0000;
        }
        let out = self.next_out;
        self.next_out += pages << 12;
        let b = Buffer { domain: d, iova, pages };
        for i in 0..pages {
            assert!(self.table.insert((d, (iova >> 12) + i), (out >> 12) + i).is_none());
        }
        // A scatter list: several maps.
        let parts = if pages >= 4 && self.rng.chance(50) { 2 } else { 1 };
        for part in 0..parts {
            self.tick(3);
            let size = (pages << 12) / parts;
            let (a, o) = (iova + part * size, out + part * size);
            self.ftrace_line(
                cpu,
                task,
                &format!(
                    "map: IOMMU: iova=0x{a:016x} - 0x{:016x} paddr=0x{o:016x} size={size}",
                    a + size
                ),
            );
            if self.recording {
                self.truth.push((true, a, size, d));
            }
        }
        self.tick(5);
        if self.mode == Mode::StrictCaching {
            self.invalidate(cpu, task, &b);
        }
        self.live.push(b);
    }

    fn unmap(&mut self, at: usize, cpu: u64, task: &str) {
        let b = self.live.swap_remove(at);
        for i in 0..b.pages {
            self.table.remove(&(b.domain, (b.iova >> 12) + i));
        }
        self.tick(5);
        let size = b.pages << 12;
        self.ftrace_line(
            cpu,
            task,
            &format!(
                "unmap: IOMMU: iova=0x{:016x} - 0x{:016x} size={size} unmapped_size={size}",
                b.iova,
                b.iova + size
            ),
        );
        if self.recording {
            self.truth.push((false, b.iova, size, b.domain));
        }
        if self.mode == Mode::Lazy {
            self.queue.push(b);
            if self.queue.iter().filter(|q| q.domain == b.domain).count() > 12 {
                self.flush(cpu, task, b.domain);
            }
        } else {
            self.tick(3);
            self.invalidate(cpu, task, &b);
            self.free[b.domain].push_back((b.iova, b.pages));
        }
    }

    fn dma(&mut self, at: usize) {
        let b = self.live[at];
        let page = (b.iova >> 12) + self.rng.below(b.pages);
        let second = self.rng.chance(40);
        let sid = device_of(b.domain, second);
        let key = (b.domain + if second && b.domain == 3 { 8 } else { 0 }, page);
        let offset = self.rng.below(4096) & !3;
        let hit = self.iotlb.get(&key).copied();
        let out = hit.unwrap_or_else(|| self.table[&(b.domain, page)]);
        if hit.is_none() {
            if self.iotlb.len() >= 1024 {
                self.iotlb.clear();
            }
            self.iotlb.insert(key, out);
        }
        self.tick(20);
        let word = if hit.is_some() { "hit" } else { "update" };
        let id = domain_id(b.domain);
        self.log_line(
            11,
            &format!(
                "vtd_iotlb_page_{word} IOTLB page {word} sid {sid:#x} iova {:#x} slpte {:#x} domain {id:#x}",
                page << 12 | offset,
                out << 12 | 3
            ),
        );
        if self.rng.chance(5) {
            self.interrupt_entry();
        }
        self.log_line(
            11,
            &format!(
                "vtd_dmar_translate dev {:02x}:{:02x}.{:02x} iova {:#x} -> gpa {:#x} mask 0xfff",
                sid >> 8,
                sid >> 3 & 0x1f,
                sid & 7,
                page << 12,
                out << 12
            ),
        );
    }

    /// Runs `n` operations.
    fn run(&mut self, n: usize) {
        for _ in 0..n {
            let cpu = self.rng.below(self.cpus);
            let task = ["fio-[0]-31", "ksoftirqd/0-14", "a b-77"][self.rng.below(3) as usize];
            match self.rng.below(10) {
                0..3 if self.live.len() < 200 => {
                    let d = self.rng.below(self.domains as u64) as usize;
                    // A ring is filled in one go.
                    for _ in 0..1 + self.rng.below(6) {
                        self.map(d, cpu, task);
                        let at = self.live.len() - 1;
                        self.dma(at);
                    }
                }
                0..8 if !self.live.is_empty() => {
                    let at = self.rng.below(self.live.len() as u64) as usize;
                    self.dma(at);
                    if self.rng.chance(30) {
                        self.unmap(at, cpu, task);
                    }
                }
                8 if self.rng.chance(20) => self.tick(200_000),
                _ => self.interrupt_entry(),
            }
        }
    }
}

fn machine(seed: u64, mode: Mode, style: Style) -> Machine {
    let mut m = Machine::new(seed, mode, style);
    m.log_line(1, "vtd_dmar_enable enable 1");
    m.log_line(1, "vtd_context_cache_reset ");
    m.run(60);
    m.recording = true;
    m.ftrace_line(0, "init-1", "tracing_mark_write: work begin x");
    m.run(1500);
    m.ftrace_line(0, "init-1", "tracing_mark_write: work end x");
    m.recording = false;
    m.run(60);
    m
}

/// Recorded table changes in the order of the events, as (map, IOVA, size).
fn changes(events: &[Event]) -> HashMap<(bool, u64, u64), Vec<DomainId>> {
    let mut by = HashMap::<_, Vec<_>>::new();
    for e in events
        .iter()
        .filter(|e| matches!(e.kind, Kind::Map | Kind::Unmap) && !e.flags.has(Flags::INFERRED))
    {
        by.entry((e.kind == Kind::Map, e.addr, e.size)).or_default().push(e.domain);
    }
    by
}

/// Table changes with the right domain, and all.
fn accuracy(m: &Machine, events: &[Event]) -> (usize, usize) {
    let found = changes(events);
    let mut truth = HashMap::<_, Vec<_>>::new();
    for &(map, iova, size, d) in &m.truth {
        truth.entry((map, iova, size)).or_default().push(DomainId(domain_id(d)));
    }
    let (mut right, mut all) = (0, 0);
    for (key, wanted) in truth {
        let mut found = found.get(&key).cloned().unwrap_or_default();
        all += wanted.len();
        // As sets: two CPUs' events may change places.
        for d in wanted {
            if let Some(at) = found.iter().position(|f| *f == d) {
                found.swap_remove(at);
                right += 1;
            }
        }
    }
    (right, all)
}

const MODES: [Mode; 3] = [Mode::Strict, Mode::StrictCaching, Mode::Lazy];

#[test]
fn complete_recordings() {
    let mut total = [(0, 0); 3];
    for seed in 0..40 {
        for mode in MODES {
            let m = machine(seed, mode, Style::Tid);
            let (report, sink) = import(m.log.as_bytes(), Some(m.ftrace.as_bytes())).unwrap();
            let (faults, _) = replay(&sink.events);
            assert_eq!(faults, Faults::default(), "seed {seed}: {report:#?}");
            assert_eq!(report.count("labels_unlike_qemu_iotlb"), 0);
            assert_eq!(report.count("table_changes"), m.truth.len() as u64);
            assert_eq!(report.count("descriptors_only_in_ftrace"), 0, "seed {seed}");
            assert_eq!(report.count("table_changes_without_domain"), 0);
            assert_eq!(sink.markers.len(), 2);
            let (right, all) = accuracy(&m, &sink.events);
            let least = if mode == Mode::Lazy { 95 } else { 99 };
            total[mode as usize].0 += right;
            total[mode as usize].1 += all;
            assert!(right * 100 >= all * least, "seed {seed}: {right} of {all}: {report:#?}");
        }
    }
    println!(
        "right of all: strict {:?}, caching mode {:?}, lazy {:?}",
        total[0], total[1], total[2]
    );
}

#[test]
fn every_stamp_style_says_the_same() {
    for seed in 100..110 {
        for mode in MODES {
            let styles = [Style::Tid, Style::Iso, Style::Bare].map(|style| {
                let m = machine(seed, mode, style);
                let alone = import(m.log.as_bytes(), None).unwrap().1.events;
                let joined = import(m.log.as_bytes(), Some(m.ftrace.as_bytes())).unwrap();
                assert_eq!(
                    replay(&joined.1.events).0,
                    Faults::default(),
                    "seed {seed}: {:#?}",
                    joined.0
                );
                assert!(joined.0.attributed_percent().unwrap().1 >= 99.9, "seed {seed}");
                (alone, joined.1.events)
            });
            let timeless = |events: &[Event]| -> Vec<Event> {
                events.iter().map(|e| Event { time_ns: 0, ..*e }).collect()
            };
            assert_eq!(styles[0].0, styles[1].0, "the same times, too");
            assert_eq!(styles[0].1, styles[1].1);
            assert_eq!(timeless(&styles[0].0), timeless(&styles[2].0));
        }
    }
}

#[test]
fn incomplete_ftrace() {
    for seed in 200..230 {
        for mode in MODES {
            let m = machine(seed, mode, Style::Tid);
            let lines: Vec<&str> = m.ftrace.split_inclusive('\n').collect();
            let n = lines.len();
            let mut rng = Rng(seed);
            let (a, b) = (rng.below(n as u64 / 2) as usize, rng.below(n as u64 / 2) as usize);
            for (what, cut) in [
                ("starts late", lines[n / 3..].concat()),
                ("ends early", lines[..n / 2].concat()),
                (
                    "lost in between",
                    lines[..a].concat() + "CPU:0 [LOST 77 EVENTS]\n" + &lines[a + b / 2..].concat(),
                ),
                ("lost here and there", lines.iter().filter(|_| !rng.chance(3)).copied().collect()),
            ] {
                let (report, sink) = import(m.log.as_bytes(), Some(cut.as_bytes())).unwrap();
                let (faults, _) = replay(&sink.events);
                let faults = Faults { inferred_unmaps_of_nothing: 0, ..faults };
                assert_eq!(faults, Faults::default(), "seed {seed} {what}: {report:#?}");
            }
        }
    }
}

#[test]
fn log_alone() {
    for seed in 300..330 {
        for mode in MODES {
            let m = machine(seed, mode, Style::Iso);
            let (report, sink) = import(m.log.as_bytes(), None).unwrap();
            assert_eq!(replay(&sink.events).0, Faults::default(), "seed {seed}: {report:#?}");
        }
    }
}
