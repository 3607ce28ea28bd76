//! Shared by the tests of the importers: fixtures, recordings, and a slow
//! model of what was recorded, written from the recordings' description
//! (`shared/traces/README.md`) and not from the importers' code.
#![allow(dead_code)]

pub mod made;
pub mod texts;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use ioasim_events::{DomainId, Event, Flags, Kind, Scope};
use ioasim_traces::Result;
use ioasim_traces::import::{self, BundleInputs, ImportReport, MemoryLines, MemorySink, Options};

/// A fixture's text.
pub fn fixture(name: &str) -> Vec<u8> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{name}.zst"));
    zstd::decode_all(
        std::fs::File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())),
    )
    .unwrap()
}

/// The folder with the full recordings, if it is there.
pub fn recordings() -> Option<PathBuf> {
    let shared = match std::env::var_os("IOASIM_SHARED") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    };
    let traces = shared.join("traces");
    if traces.is_dir() {
        Some(traces)
    } else {
        println!("skipped: {} is not there (IOASIM_SHARED tells another place)", traces.display());
        None
    }
}

/// Imports texts in memory.
pub fn import(log: &[u8], ftrace: Option<&[u8]>) -> Result<(ImportReport, MemorySink)> {
    let mut sink = MemorySink::default();
    let ftrace = ftrace.map(|f| MemoryLines::new("guest.ftrace", f));
    let (report, ..) = import::qemu_log(
        MemoryLines::new("qemu.log", log),
        ftrace,
        &mut sink,
        &mut Options::default(),
    )?;
    Ok((report, sink))
}

/// The four texts of a bundle: host, guest, VMM, hypervisor.
pub type Texts = [Vec<u8>; 4];

/// Imports a bundle in memory.
pub fn import_bundle([host, guest, vmm, hypervisor]: &Texts) -> Result<(ImportReport, MemorySink)> {
    let mut sink = MemorySink::default();
    let inputs = BundleInputs {
        host: MemoryLines::new("host.log", host),
        guest_ftrace: MemoryLines::new("guest.ftrace", guest),
        vmm: MemoryLines::new("vmm.log", vmm),
        hypervisor_ftrace: MemoryLines::new("hypervisor.ftrace", hypervisor),
    };
    let again =
        (MemoryLines::new("vmm.log", vmm), MemoryLines::new("hypervisor.ftrace", hypervisor));
    let (report, _) = import::bundle(inputs, again, &mut sink, &mut Options::default())?;
    Ok((report, sink))
}

/// Whose IOTLB a recording shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Machine {
    #[default]
    VtD,
    AmdVi,
    SmmuV3,
}

/// QEMU 7.2's IOTLB, entry by entry.
#[derive(Default)]
pub struct Iotlb {
    machine: Machine,
    /// (requester, or domain on an SMMU; first page, pages - 1) to (domain,
    /// output page).
    entries: HashMap<(u32, u64, u64), (u32, u64)>,
}

impl Iotlb {
    /// What entries are keyed by beside the page.
    fn owner(&self, e: &Event) -> u32 {
        if self.machine == Machine::SmmuV3 { e.domain.0 } else { e.requester.0 }
    }

    fn lookup(&self, sid: u32, page: u64) -> Option<u64> {
        [0, 0x1ff, 0x3ffff].into_iter().find_map(|mask| {
            self.entries.get(&(sid, page & !mask, mask)).map(|(_, out)| out + (page & mask))
        })
    }

    fn fill(&mut self, sid: u32, domain: u32, page: u64, out: u64, mask: u64) {
        if self.entries.len() >= if self.machine == Machine::SmmuV3 { 256 } else { 1024 } {
            self.entries.clear();
        }
        self.entries.insert((sid, page & !mask, mask), (domain, out & !mask));
    }

    fn invalidate(&mut self, e: &Event) {
        match e.flags.scope() {
            Some(Scope::Page) if self.machine == Machine::SmmuV3 => {
                let range = pages(e);
                self.entries.retain(|(_, gfn, m), (d, _)| {
                    *d != e.domain.0 || gfn + m < range.start || *gfn >= range.end
                });
            }
            Some(Scope::Page) if self.machine == Machine::AmdVi => {
                self.entries.retain(|_, (d, _)| *d != e.domain.0);
            }
            Some(Scope::Page) => {
                let am = (e.size >> 12).trailing_zeros();
                let mask: u8 = if am >= 8 { 0 } else { !((1u8 << am) - 1) };
                let mask = u64::from(mask);
                let page = e.out >> 12;
                self.entries.retain(|(_, gfn, m), (d, _)| {
                    *d != e.domain.0 || (gfn & mask != page & mask && *gfn != page & !m)
                });
            }
            Some(Scope::Domain) => self.entries.retain(|_, (d, _)| *d != e.domain.0),
            Some(Scope::Global | Scope::Reset) => self.entries.clear(),
            _ => {}
        }
    }
}

/// What a replay found wrong; everything must stay 0.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub labels: u64,
    pub targets: u64,
    pub attaches: u64,
    pub times: u64,
    pub overlapping_maps: u64,
    pub map_notify_of_unmapped: u64,
    pub inferred_unmaps_of_nothing: u64,
}

/// What a replay saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub dma: u64,
    pub labelled: u64,
    pub kinds: HashMap<&'static str, u64>,
    pub inferred: u64,
    pub walk_reads: u64,
}

/// Pages by (domain, page).
type Table = HashMap<(u32, u64), u64>;

fn pages(e: &Event) -> std::ops::Range<u64> {
    e.addr >> 12..(e.addr >> 12) + e.size.div_ceil(4096)
}

fn unmap(table: &mut Table, e: &Event) -> u64 {
    let before = table.len();
    let range = pages(e);
    if range.end - range.start > 1 << 20 {
        table.retain(|(d, p), _| *d != e.domain.0 || !range.contains(p));
    } else {
        for p in range {
            table.remove(&(e.domain.0, p));
        }
    }
    (before - table.len()) as u64
}

/// Replays a single-level trace in file order: the guest's table and the
/// IOTLB must give every recorded output and label.
pub fn replay(events: &[Event]) -> (Faults, Seen) {
    replay_on(Machine::VtD, events)
}

/// The same on another machine.
pub fn replay_on(machine: Machine, events: &[Event]) -> (Faults, Seen) {
    let mut faults = Faults::default();
    let mut seen = Seen::default();
    let mut table = Table::new();
    let mut iotlb = Iotlb { machine, ..Iotlb::default() };
    let mut attached: HashMap<u32, u32> = HashMap::new();
    let mut unmapped: HashSet<(u32, u64)> = HashSet::new();
    let mut last = 0;
    for e in events {
        faults.times += u64::from(e.time_ns < last);
        last = e.time_ns;
        *seen.kinds.entry(e.kind.name()).or_default() += 1;
        seen.inferred += u64::from(e.flags.has(Flags::INFERRED));
        match e.kind {
            Kind::Attach => {
                attached.insert(e.requester.0, e.domain.0);
            }
            Kind::Map if e.domain != DomainId::NONE => {
                for (i, p) in pages(e).enumerate() {
                    let old = table.insert((e.domain.0, p), (e.out >> 12) + i as u64);
                    faults.overlapping_maps += u64::from(old.is_some());
                }
            }
            Kind::Unmap if e.domain != DomainId::NONE => {
                if e.size >> 12 <= 1 << 16 {
                    unmapped.extend(pages(e).map(|p| (e.domain.0, p)));
                }
                let n = unmap(&mut table, e);
                faults.inferred_unmaps_of_nothing +=
                    u64::from(n == 0 && e.flags.has(Flags::INFERRED));
            }
            Kind::Invalidate => {
                if e.flags.scope() == Some(Scope::Page) && e.size >> 12 <= 1 << 16 {
                    let soiled = pages(e).filter(|p| unmapped.remove(&(e.domain.0, *p))).count();
                    faults.map_notify_of_unmapped +=
                        u64::from(soiled > 0 && e.flags.has(Flags::MAP_NOTIFY));
                }
                match e.flags.scope() {
                    Some(Scope::Domain) => unmapped.retain(|(d, _)| *d != e.domain.0),
                    Some(Scope::Global | Scope::Reset) => unmapped.clear(),
                    _ => {}
                }
                iotlb.invalidate(e);
            }
            Kind::Dma => {
                seen.dma += 1;
                if e.domain != DomainId::NONE {
                    faults.attaches += u64::from(attached.get(&e.requester.0) != Some(&e.domain.0));
                }
                if !e.flags.has(Flags::LABEL_KNOWN) {
                    continue;
                }
                seen.labelled += 1;
                let page = e.addr >> 12;
                let cached = iotlb.lookup(iotlb.owner(e), page);
                faults.labels += u64::from(cached.is_some() != e.flags.has(Flags::HIT));
                seen.walk_reads += e.aux;
                let walked = table.get(&(e.domain.0, page)).copied();
                let out = cached.or(walked);
                if !e.flags.has(Flags::OUT_KNOWN) {
                    continue;
                }
                faults.targets += u64::from(out.map(|o| o << 12 | e.addr & 0xfff) != Some(e.out));
                if cached.is_none() {
                    iotlb.fill(iotlb.owner(e), e.domain.0, page, e.out >> 12, 0);
                }
            }
            _ => {}
        }
    }
    (faults, seen)
}

/// What the replay of a bundle found wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BundleFaults {
    pub labels: u64,
    pub targets: u64,
    pub times: u64,
    pub shadow_operations: u64,
    pub shadow_hpa: u64,
    pub parent_overlaps: u64,
}

/// Replays a bundle: the guest's table and the rule of software nesting must
/// give the VMM's operations; shadow, parent and physical IOTLB must give
/// every access. Returns the number of invalidations and operations compared.
pub fn replay_bundle(events: &[Event]) -> (BundleFaults, u64) {
    let mut faults = BundleFaults::default();
    let (mut guest, mut vmm, mut shadow, mut parent) =
        (Table::new(), Table::new(), Table::new(), Table::new());
    let mut iotlb = Iotlb::default();
    let mut compared = 0;
    let mut last = 0;
    // Operations expected from the last invalidation: (map, page, output).
    let mut expected: Vec<(bool, u32, u64, u64)> = Vec::new();
    for e in events {
        faults.times += u64::from(e.time_ns < last);
        last = e.time_ns;
        match e.kind {
            Kind::Map => {
                for (i, p) in pages(e).enumerate() {
                    guest.insert((e.domain.0, p), (e.out >> 12) + i as u64);
                }
            }
            Kind::Unmap => {
                unmap(&mut guest, e);
            }
            Kind::Invalidate => {
                faults.shadow_operations += expected.len() as u64;
                expected.clear();
                if e.flags.scope() == Some(Scope::Page) {
                    compared += 1;
                    for p in pages(e) {
                        let key = (e.domain.0, p);
                        let (now, old) = (guest.get(&key).copied(), vmm.get(&key).copied());
                        if now == old {
                            continue;
                        }
                        if old.is_some() {
                            expected.push((false, key.0, p, 0));
                            vmm.remove(&key);
                        }
                        if let Some(out) = now {
                            expected.push((true, key.0, p, out));
                            vmm.insert(key, out);
                        }
                    }
                    expected.reverse();
                }
            }
            Kind::ShadowMap | Kind::ShadowUnmap => {
                compared += 1;
                let map = e.kind == Kind::ShadowMap;
                let is = (map, e.domain.0, e.addr >> 12, if map { e.out >> 12 } else { 0 });
                let wanted = expected.pop();
                faults.shadow_operations += u64::from(e.size != 4096 || wanted != Some(is));
                if map {
                    let hpa = parent.get(&(DomainId::PARENT.0, e.out >> 12));
                    faults.shadow_hpa += u64::from(hpa != Some(&(e.aux >> 12)));
                    shadow.insert((e.domain.0, e.addr >> 12), e.aux >> 12);
                } else {
                    shadow.remove(&(e.domain.0, e.addr >> 12));
                }
            }
            Kind::ParentMap => {
                for (i, p) in pages(e).enumerate() {
                    let old = parent.insert((DomainId::PARENT.0, p), (e.out >> 12) + i as u64);
                    faults.parent_overlaps += u64::from(old.is_some());
                }
            }
            Kind::ParentUnmap => {
                for p in pages(e) {
                    parent.remove(&(DomainId::PARENT.0, p));
                }
            }
            Kind::HostInvalidate => iotlb.invalidate(e),
            Kind::Dma => {
                let page = e.addr >> 12;
                let cached = iotlb.lookup(e.requester.0, page);
                faults.labels += u64::from(cached.is_some() != e.flags.has(Flags::HIT));
                let table = if e.domain == DomainId::PARENT { &parent } else { &shadow };
                let walked = table.get(&(e.domain.0, page)).copied();
                faults.targets += u64::from(cached.or(walked) != Some(e.out >> 12));
                if cached.is_none() {
                    // The page size in the physical table is what the
                    // hypervisor could use; 2 MiB shows in the addresses.
                    let large = walked.is_some_and(|out| {
                        let first = page & !0x1ff;
                        (0..512).all(|i| {
                            table.get(&(e.domain.0, first + i)) == Some(&((out & !0x1ff) + i))
                        })
                    });
                    iotlb.fill(
                        e.requester.0,
                        e.domain.0,
                        page,
                        e.out >> 12,
                        if large { 0x1ff } else { 0 },
                    );
                }
            }
            _ => {}
        }
    }
    (faults, compared)
}
