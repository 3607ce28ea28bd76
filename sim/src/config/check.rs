//! Limits and contradictions.

use super::{
    Config, ConfigError, InvalidationEncoding, IotlbConfig, Levels, Nesting, Ownership, PageMatch,
    Refusal, ReplacementKind, TagBy, UnmapPolicy,
};
use crate::parent::Layout;
use crate::prefetch;
use crate::sync;
use crate::tree::{MAX_STAGES, Placement};
use crate::walk::WalkCacheConfig;

/// Limits of configuration values.
pub mod limits {
    /// Most entries of one cache: 16.8 M entries take about 1 GB.
    pub const CACHE_ENTRIES: u64 = 1 << 24;
    /// Most intervals of a time series.
    pub const INTERVALS: u64 = 10_000;
    /// Most pages prefetched after one miss.
    pub const PREFETCH_PAGES: u64 = 64;
    /// Most commands per trap: the entries of VT-d's largest invalidation
    /// queue (2^7 pages of 256 descriptors).
    pub const COMMANDS_PER_TRAP: u64 = 1 << 15;
    /// Most ranges that wait in a flush queue's ring: 16.8 M take about 0.5 GB.
    pub const FLUSH_QUEUE_ENTRIES: u64 = 1 << 24;
}

/// Names of the levels that `stages` speaks of, root first; `None` if it is
/// empty.
fn level_names(stages: &[Vec<String>]) -> Option<&'static [&'static str]> {
    let three = stages.iter().flatten().any(|name| name == "l2");
    match stages {
        [] => None,
        _ if three => Some(&["l0", "l1", "l2"]),
        _ => Some(&["l0", "l1"]),
    }
}

impl Config {
    /// Checks sizes and combinations.
    ///
    /// # Errors
    /// [`ConfigError::Refused`] with the first key that is out of its limits.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key: &str, value: String, limit: String| {
            Err(ConfigError::Refused { name: self.name.clone(), key: key.into(), value, limit })
        };
        if self.name.is_empty() || self.name.len() > 100 {
            return refuse("name", format!("{:?}", self.name), "1 to 100 characters".into());
        }
        let iotlb = WalkCacheConfig { entries: self.iotlb.entries, ways: self.iotlb.ways };
        self.check_cache("iotlb", iotlb, false)?;
        self.check_cache("nested_cache", self.nested_cache, true)?;
        for (stage, pwc) in [("stage1", &self.pwc.stage1), ("stage2", &self.pwc.stage2)] {
            for (span, cache) in ["2m", "1g", "512g", "256t"].into_iter().zip(pwc.by_level()) {
                self.check_cache(&format!("pwc.{stage}.{span}"), cache, true)?;
            }
        }
        let levels = [
            ("parent.levels", self.parent.levels),
            (
                "child.levels",
                match self.child.levels {
                    Levels::Fixed(n) => n,
                    Levels::Recorded(_) => 3,
                },
            ),
        ];
        for (key, n) in levels {
            if !(3..=5).contains(&n) {
                return refuse(key, n.to_string(), "tables have 3, 4 or 5 levels".into());
            }
        }
        if self.report.intervals == 0 || self.report.intervals > limits::INTERVALS {
            let limit = format!("1 to {} intervals", limits::INTERVALS);
            return refuse("report.intervals", self.report.intervals.to_string(), limit);
        }
        let commands = self.guest.commands_per_trap;
        if commands == 0 || commands > limits::COMMANDS_PER_TRAP {
            let limit = format!("1 to {} commands", limits::COMMANDS_PER_TRAP);
            return refuse("guest.commands_per_trap", commands.to_string(), limit);
        }
        if self.verify.labels && self.guest.invalidation != InvalidationEncoding::AsRecorded {
            let limit = "verify.labels claims the recording machine, whose invalidations are \
                         \"as-recorded\"";
            let value = format!("{:?}", self.guest.invalidation.name());
            return refuse("guest.invalidation", value, limit.into());
        }
        self.check_unmap()?;
        self.check_stages()?;
        let flush = self.iotlb.replacement == ReplacementKind::FlushWhenFull;
        if flush && self.iotlb.ways != self.iotlb.entries {
            let limit = "`flush-when-full` is fully associative: set it equal to iotlb.entries";
            return refuse("iotlb.ways", self.iotlb.ways.to_string(), limit.into());
        }
        let (matching, name) = match self.iotlb.page_match {
            PageMatch::Exact => (true, "exact"),
            PageMatch::Low8 => (flush, "low8"),
            PageMatch::Domain => (flush, "domain"),
        };
        self.check_prefetch(flush)?;
        if !matching {
            let limit = "`low8` and `domain` are QEMU's and exist with `flush-when-full` only; \
                         use `exact`";
            return refuse("iotlb.page_match", format!("\"{name}\""), limit.into());
        }
        if self.nesting == Nesting::Software {
            let calls = self.sync.policy == sync::Kind::MapUnmap;
            let host_managed = self.child.ownership == Ownership::HostManaged;
            if calls != host_managed {
                let (value, limit) = if calls {
                    (
                        "\"user-managed\"",
                        "sync.policy = \"map-unmap\" sees calls only: the child must be \"host-managed\"",
                    )
                } else {
                    (
                        "\"host-managed\"",
                        "under every sync.policy but \"map-unmap\" the child is bound by its user: set it to \"user-managed\", or sync.policy to \"map-unmap\"",
                    )
                };
                return refuse("child.ownership", value.into(), limit.into());
            }
        }
        if self.nesting == Nesting::Hardware && self.child.ownership == Ownership::HostManaged {
            let limit = "hardware nesting walks the guest's own table, which is \"user-managed\"";
            return refuse("child.ownership", "\"host-managed\"".into(), limit.into());
        }
        if let Some(Refusal { key, value, limit }) =
            self.time.refused(self.nesting == Nesting::Hardware)
        {
            return refuse(&key, value, limit);
        }
        if self.parent.ownership == Ownership::UserManaged {
            let limit = "the parent is changed by map and unmap calls: \"host-managed\"";
            return refuse("parent.ownership", "\"user-managed\"".into(), limit.into());
        }
        Ok(())
    }

    /// Unmap policy and flush queue.
    fn check_unmap(&self) -> Result<(), ConfigError> {
        let refuse = |key: &str, value: String, limit: String| {
            Err(ConfigError::Refused { name: self.name.clone(), key: key.into(), value, limit })
        };
        let policy = self.guest.unmap;
        if self.verify.labels && policy != UnmapPolicy::AsRecorded {
            let limit = "verify.labels claims the recording machine, whose guest unmaps \
                         \"as-recorded\"";
            return refuse("guest.unmap", format!("{:?}", policy.name()), limit.into());
        }
        let entries = self.guest.flush_queue.entries;
        if entries == 0 || entries > limits::FLUSH_QUEUE_ENTRIES {
            let limit = format!("1 to {} ranges", limits::FLUSH_QUEUE_ENTRIES);
            return refuse("guest.flush_queue.entries", entries.to_string(), limit);
        }
        Ok(())
    }

    /// Partitions and prefetching.
    fn check_prefetch(&self, flush: bool) -> Result<(), ConfigError> {
        let refuse = |key: &str, value: String, limit: &str| {
            Err(ConfigError::Refused {
                name: self.name.clone(),
                key: key.into(),
                value,
                limit: limit.into(),
            })
        };
        let IotlbConfig { entries, ways, partitions, prefetch, .. } = self.iotlb;
        let parts = || partitions.to_string();
        if partitions == 0 || !(entries / ways).is_multiple_of(partitions) {
            let limit = format!(
                "it must divide the {} sets (iotlb.entries / iotlb.ways) into equal parts of \
                 one set or more: change it, or lower iotlb.ways",
                entries / ways
            );
            return refuse("iotlb.partitions", parts(), &limit);
        }
        if partitions > 1 && self.iotlb.tag != TagBy::Domain {
            let limit = "parts belong to domains: set iotlb.tag = \"domain\", or partitions = 1";
            return refuse("iotlb.partitions", parts(), limit);
        }
        if !(1..=limits::PREFETCH_PAGES).contains(&prefetch.pages) {
            let limit = format!(
                "1 to {} pages; to fetch none, set iotlb.prefetch.policy = \"none\"",
                limits::PREFETCH_PAGES
            );
            return refuse("iotlb.prefetch.pages", prefetch.pages.to_string(), &limit);
        }
        if prefetch.policy == prefetch::Kind::None {
            return Ok(());
        }
        let policy = format!("\"{}\"", prefetch.policy.name());
        if flush {
            let limit = "QEMU's caches (`flush-when-full`) fetch nothing in advance: use \"none\", \
                         or another iotlb.replacement";
            return refuse("iotlb.prefetch.policy", policy, limit);
        }
        if self.verify.labels {
            let limit = "verify.labels claims the recording machine's IOTLB, which fetches \
                         nothing in advance: use \"none\", or verify.labels = false";
            return refuse("iotlb.prefetch.policy", policy, limit);
        }
        Ok(())
    }

    /// The placement, if `stages` has three levels.
    pub fn three_levels(&self) -> Option<Placement> {
        let names = level_names(&self.stages)?;
        Placement::new(names, &self.stages_as_str(), self.hardware_stages as usize)
            .ok()
            .filter(|p| p.depth() == 3)
    }

    fn stages_as_str(&self) -> Vec<Vec<&str>> {
        self.stages.iter().map(|stage| stage.iter().map(String::as_str).collect()).collect()
    }

    fn check_stages(&self) -> Result<(), ConfigError> {
        let refuse = |key: &str, value: String, limit: String| {
            Err(ConfigError::Refused { name: self.name.clone(), key: key.into(), value, limit })
        };
        let value = || format!("{:?}", self.stages);
        if !(1..=MAX_STAGES as u64).contains(&self.hardware_stages) {
            let limit = format!("1 to {MAX_STAGES} stages");
            return refuse("hardware_stages", self.hardware_stages.to_string(), limit);
        }
        let Some(names) = level_names(&self.stages) else {
            if self.nesting == Nesting::Hardware && self.hardware_stages < 2 {
                let limit =
                    "this hardware walks one stage: use \"software\", or hardware_stages = 2";
                return refuse("nesting", "\"hardware\"".into(), limit.into());
            }
            return Ok(());
        };
        let hardware = self.hardware_stages as usize;
        let placement = match Placement::new(names, &self.stages_as_str(), hardware) {
            Ok(placement) => placement,
            Err(e) => return refuse("stages", value(), e.to_string()),
        };
        let (top, below) = (names[names.len() - 1], names[names.len() - 2]);
        let merged = placement.merged(names.len() - 1);
        let wanted = if merged { Nesting::Software } else { Nesting::Hardware };
        if self.nesting != wanted {
            let (what, nesting) = match merged {
                true => ("merges", "software"),
                false => ("does not merge", "hardware"),
            };
            let limit = format!("it {what} {top} with {below}: set nesting = \"{nesting}\"");
            return refuse("stages", value(), limit);
        }
        if placement.depth() < 3 {
            return Ok(());
        }
        for (key, layout) in
            [("host.layout", self.host.layout), ("parent.layout", self.parent.layout)]
        {
            if layout == Layout::Identity {
                let limit = "in a tree of three levels it must have a table: \"2m\", \"1g\" or \"4k-scattered\"";
                return refuse(key, "\"identity\"".into(), limit.into());
            }
        }
        if !(4..=5).contains(&self.host.levels) {
            let limit = "its table has 4 or 5 levels";
            return refuse("host.levels", self.host.levels.to_string(), limit.into());
        }
        if self.report.exposure && placement.merged(2) && !placement.merged(1) {
            let limit = "it is measured where shadows hold host addresses: merge l0 too";
            return refuse("report.exposure", "true".into(), limit.into());
        }
        Ok(())
    }

    fn check_cache(
        &self,
        key: &str,
        cache: WalkCacheConfig,
        may_be_absent: bool,
    ) -> Result<(), ConfigError> {
        let WalkCacheConfig { entries, ways } = cache;
        let least = if may_be_absent { 0 } else { 1 };
        let (what, value, limit) = if entries < least || entries > limits::CACHE_ENTRIES {
            let limit = format!("{least} to {} entries", limits::CACHE_ENTRIES);
            ("entries", entries, limit)
        } else if ways == 0 || (entries > 0 && ways > entries) {
            ("ways", ways, format!("1 to {} ways (entries = fully associative)", entries.max(1)))
        } else if entries > 0 && !entries.is_multiple_of(ways) {
            ("ways", ways, format!("it must divide the {entries} entries into equal sets"))
        } else {
            return Ok(());
        };
        Err(ConfigError::Refused {
            name: self.name.clone(),
            key: format!("{key}.{what}"),
            value: value.to_string(),
            limit,
        })
    }
}
