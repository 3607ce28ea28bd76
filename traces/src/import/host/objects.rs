//! Objects of `/dev/iommu` as the log names them: I/O address spaces, tables
//! on them, and the devices attached.

use ioasim_events::DomainId;
use rustc_hash::FxHashMap;

use super::super::qemu_line::Object;

/// Objects and devices kept at most.
const MAX_OBJECTS: usize = 1 << 16;
/// Ids of one file descriptor that get a number of their own.
const IDS: u32 = 1 << 20;
/// File descriptors that get a number of their own.
const FDS: u32 = 4094;

/// What an IOAS holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// The guest's memory.
    Parent,
    /// The shadow of a guest's table, or a table of its own.
    Child,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// File descriptors, numbered in the order of their first use.
    fds: FxHashMap<u32, u32>,
    levels: FxHashMap<Object, Level>,
    /// Tables: what they are on, and whether they are nested.
    tables: FxHashMap<Object, (u32, bool)>,
    /// Tables of the kernel's own on an IOAS.
    on: FxHashMap<Object, Vec<Object>>,
    /// What devices are attached to, and as which domain that was written.
    devices: FxHashMap<(u32, u32), (Object, Option<u32>)>,
    /// Devices that were attached to an object, and may have left it.
    attached: FxHashMap<Object, Vec<u32>>,
}

impl Objects {
    /// True if the log names none.
    pub(super) fn none(&self) -> bool {
        self.fds.is_empty()
    }

    /// Number of an object as a domain.
    pub(super) fn domain(&mut self, object: Object) -> u32 {
        let next = self.fds.len() as u32;
        let fd = match self.fds.get(&object.iommufd) {
            Some(fd) => *fd,
            None if next < FDS => *self.fds.entry(object.iommufd).or_insert(next),
            None => FDS,
        };
        fd * IDS + object.id % IDS
    }

    /// A table was made on an IOAS or, nested, on another table.
    pub(super) fn add_table(&mut self, hwpt: Object, on: u32, nested: bool) {
        bounded(&mut self.tables);
        self.tables.insert(hwpt, (on, nested));
        if !nested {
            bounded(&mut self.on);
            push_bounded(self.on.entry(Object { id: on, ..hwpt }).or_default(), hwpt);
        }
    }

    pub(super) fn is_nested(&self, object: Object) -> bool {
        self.tables.get(&object).is_some_and(|t| t.1)
    }

    /// The IOAS below a table of the kernel's, or the object itself.
    fn ioas_of(&self, object: Object) -> Object {
        match self.tables.get(&object) {
            Some((on, false)) => Object { id: *on, ..object },
            _ => object,
        }
    }

    /// The IOAS holds `level`; the devices whose attachment that settles.
    pub(super) fn place(&mut self, ioas: Object, level: Level) -> Option<Vec<u32>> {
        bounded(&mut self.levels);
        if self.levels.insert(ioas, level) == Some(level) {
            return None;
        }
        let domain = match level {
            Level::Parent => DomainId::PARENT.0,
            Level::Child => self.domain(ioas),
        };
        let mut settled = Vec::new();
        let tables = self.on.get(&ioas).into_iter().flatten().copied();
        for to in tables.chain([ioas]) {
            for device in self.attached.get(&to).into_iter().flatten() {
                if let Some((at, written)) = self.devices.get_mut(&(ioas.iommufd, *device))
                    && *at == to
                    && *written != Some(domain)
                {
                    *written = Some(domain);
                    settled.push(*device);
                }
            }
        }
        settled.sort_unstable();
        Some(settled)
    }

    /// A device is attached; its domain, unless it is not known yet what
    /// the IOAS holds.
    pub(super) fn attach(&mut self, device: u32, to: Object) -> Option<u32> {
        bounded(&mut self.devices);
        let domain = if self.is_nested(to) {
            Some(self.domain(to))
        } else {
            let ioas = self.ioas_of(to);
            match self.levels.get(&ioas) {
                Some(Level::Parent) => Some(DomainId::PARENT.0),
                Some(Level::Child) => Some(self.domain(ioas)),
                None => None,
            }
        };
        self.devices.insert((to.iommufd, device), (to, domain));
        bounded(&mut self.attached);
        push_bounded(self.attached.entry(to).or_default(), device);
        domain
    }

    /// A device is detached; from which domain, if its attachment was written.
    pub(super) fn detach(&mut self, iommufd: u32, device: u32) -> Option<u32> {
        self.devices.remove(&(iommufd, device))?.1
    }

    pub(super) fn free(&mut self, object: Object) {
        self.tables.remove(&object);
        self.levels.remove(&object);
        self.on.remove(&object);
        self.attached.remove(&object);
    }
}

/// Remembers up to 4,096; a real object has a handful.
fn push_bounded<T: PartialEq>(all: &mut Vec<T>, new: T) {
    if all.len() < 1 << 12 && all.last() != Some(&new) {
        all.push(new);
    }
}

/// Keeps a log of made-up ids within bounds.
fn bounded<K, V>(map: &mut FxHashMap<K, V>) {
    if map.len() >= MAX_OBJECTS {
        map.clear();
    }
}

/// `enum iommu_hwpt_data_type` (Linux, `include/uapi/linux/iommufd.h`).
pub(super) fn kind_name(kind: u32) -> &'static str {
    match kind {
        1 => "VT-d stage 1",
        2 => "SMMUv3",
        3 => "AMD guest",
        _ => "other",
    }
}
