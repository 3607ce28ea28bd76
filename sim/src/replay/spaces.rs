//! I/O address spaces, the devices attached to them, and the tags that their
//! cached translations carry.

use rustc_hash::FxHashMap;

use crate::cache::Tag;
use crate::config::{Levels, TagBy};
use crate::events::{DomainId, Pasid, Requester, TraceInfo};
use crate::parent::Parent;
use crate::shadow::Shadow;
use crate::table::{Prune, RadixTable};

/// Index of an address space; 0 is the parent's own (IOVA = GPA).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SpaceId(pub u32);

/// The parent's own address space.
pub(crate) const PARENT_SPACE: SpaceId = SpaceId(0);

/// A child of the parent (or the parent itself, without a table).
pub(crate) struct Space {
    /// The guest's table.
    pub child: Option<RadixTable>,
    /// Its shadow, under software nesting.
    pub shadow: Option<Shadow>,
    /// Tags of cached translations of this space.
    pub tags: Vec<Tag>,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    /// Index into the devices' counters.
    pub device: u32,
    /// Address space.
    pub space: SpaceId,
    /// Tag of its cached translations.
    pub tag: Tag,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Source {
    requester: Requester,
    pasid: Pasid,
    domain: DomainId,
}

/// All address spaces of a replay.
pub(crate) struct Spaces {
    spaces: Vec<Space>,
    by_domain: FxHashMap<DomainId, SpaceId>,
    attached: FxHashMap<(Requester, Pasid), SpaceId>,
    tags: FxHashMap<(SpaceId, Requester, Pasid), Tag>,
    next_tag: u32,
    devices: FxHashMap<Requester, u32>,
    /// Requester of device `i`.
    pub device_ids: Vec<Requester>,
    /// Recent routes, so that a request costs one comparison.
    memo: Vec<Option<(Source, Route)>>,
    levels: u32,
    software: bool,
    tag_by: TagBy,
}

const MEMO: usize = 2048;
/// Where shadows' table pages lie in the input of a host level below them.
const SHADOW_PAGES_AT: u64 = 1 << 44;
/// Table pages of one shadow (16 GiB); more are used again, as are those of
/// shadows beyond the 4,096th (addresses only).
const SHADOW_PAGES: u64 = 1 << 22;
const SHADOWS: u64 = 1 << 12;

/// Where a memo of any length remembers a source. Sums, so that tenants that are
/// numbered in a row do not share places.
#[inline]
pub(crate) fn memo_place(requester: u32, pasid: u32, domain: u32) -> usize {
    let tenant = requester.wrapping_add(domain.wrapping_mul(2));
    tenant.wrapping_add(pasid.wrapping_mul(31)) as usize
}

/// More spaces or tags than a key can hold.
#[derive(Debug)]
pub(crate) struct TooManyTags;

/// Levels of the children's tables.
pub(crate) fn child_levels(levels: Levels, info: &TraceInfo) -> u32 {
    match levels {
        Levels::Fixed(n) => n,
        Levels::Recorded(_) => {
            let needed = info.iova_bits.saturating_sub(12).div_ceil(9);
            info.child_levels.max(needed).clamp(3, 5)
        }
    }
}

impl Spaces {
    pub fn new(levels: Levels, info: &TraceInfo, software: bool, tag_by: TagBy) -> Spaces {
        let levels = child_levels(levels, info);
        Spaces {
            spaces: vec![Space { child: None, shadow: None, tags: Vec::new() }],
            by_domain: FxHashMap::from_iter([(DomainId::PARENT, PARENT_SPACE)]),
            attached: FxHashMap::default(),
            tags: FxHashMap::default(),
            next_tag: 0,
            devices: FxHashMap::default(),
            device_ids: Vec::new(),
            memo: vec![None; MEMO],
            levels,
            software,
            tag_by,
        }
    }

    #[inline]
    pub fn get(&self, id: SpaceId) -> &Space {
        &self.spaces[id.0 as usize]
    }

    #[inline]
    pub fn get_mut(&mut self, id: SpaceId) -> &mut Space {
        &mut self.spaces[id.0 as usize]
    }

    /// All spaces.
    pub fn ids(&self) -> impl Iterator<Item = SpaceId> + use<> {
        (0..self.spaces.len() as u32).map(SpaceId)
    }

    /// The space of a domain that has been seen.
    #[inline]
    pub fn find(&self, domain: DomainId) -> Option<SpaceId> {
        self.by_domain.get(&domain).copied()
    }

    /// The space of a domain, created if new.
    pub fn of_domain(
        &mut self,
        domain: DomainId,
        parent: &mut Parent,
    ) -> Result<SpaceId, TooManyTags> {
        if let Some(id) = self.find(domain) {
            return Ok(id);
        }
        let id = SpaceId(self.spaces.len() as u32);
        if id.0 >= Tag::LIMIT {
            return Err(TooManyTags);
        }
        let mut place = |_: u32, _: u64| parent.take_table_page();
        self.spaces.push(Space {
            child: Some(RadixTable::new(self.levels, Prune::Covered, &mut place)),
            shadow: self.software.then(|| {
                if !parent.is_over_walked_host() {
                    return Shadow::new(self.levels);
                }
                // Pages that the host translates: each shadow has its own.
                let base = SHADOW_PAGES_AT + (id.0 as u64 % SHADOWS) * SHADOW_PAGES * 4096;
                Shadow::with_pages(self.levels, base, SHADOW_PAGES)
            }),
            tags: Vec::new(),
        });
        self.by_domain.insert(domain, id);
        Ok(id)
    }

    /// Attaches a device.
    pub fn attach(&mut self, requester: Requester, pasid: Pasid, space: SpaceId) {
        self.attached.insert((requester, pasid), space);
        self.memo.fill(None);
    }

    /// Detaches a device; true if it was attached.
    pub fn detach(&mut self, requester: Requester, pasid: Pasid) -> bool {
        self.memo.fill(None);
        self.attached.remove(&(requester, pasid)).is_some()
    }

    /// Spaces that a requester is attached to.
    pub fn attached_to(&self, requester: Requester) -> Vec<SpaceId> {
        let of = |((r, _), space): (&(Requester, Pasid), &SpaceId)| {
            (*r == requester || requester == Requester::NONE).then_some(*space)
        };
        let mut found: Vec<SpaceId> = self.attached.iter().filter_map(of).collect();
        found.sort_unstable_by_key(|s| s.0);
        found.dedup();
        found
    }

    #[inline]
    fn memo_of(source: Source) -> usize {
        let Source { requester, pasid, domain } = source;
        memo_place(requester.0, pasid.0, domain.0) % MEMO
    }

    /// The route of a source that was asked for lately.
    #[inline]
    pub fn known(&self, requester: Requester, pasid: Pasid, domain: DomainId) -> Option<Route> {
        let source = Source { requester, pasid, domain };
        let (known, route) = self.memo[Self::memo_of(source)]?;
        (known == source).then_some(route)
    }

    /// Where a request goes: the recorded domain if there is one, else where
    /// the device is attached. `None` if neither is known.
    #[inline]
    pub fn route(
        &mut self,
        requester: Requester,
        pasid: Pasid,
        domain: DomainId,
        parent: &mut Parent,
    ) -> Result<Option<Route>, TooManyTags> {
        let source = Source { requester, pasid, domain };
        let at = Self::memo_of(source);
        if let Some((known, route)) = &self.memo[at]
            && *known == source
        {
            return Ok(Some(*route));
        }
        let Some(route) = self.find_route(source, parent)? else { return Ok(None) };
        self.memo[at] = Some((source, route));
        Ok(Some(route))
    }

    fn find_route(
        &mut self,
        source: Source,
        parent: &mut Parent,
    ) -> Result<Option<Route>, TooManyTags> {
        let Source { requester, pasid, domain } = source;
        let space = if domain != DomainId::NONE {
            self.of_domain(domain, parent)?
        } else {
            let exact = self.attached.get(&(requester, pasid));
            match exact.or_else(|| self.attached.get(&(requester, Pasid::NONE))) {
                Some(space) => *space,
                None => return Ok(None),
            }
        };
        let next = self.devices.len() as u32;
        let device = *self.devices.entry(requester).or_insert(next);
        if device == next {
            self.device_ids.push(requester);
        }
        let (by_requester, by_pasid) = match self.tag_by {
            TagBy::Domain => (false, false),
            TagBy::Pasid => (false, true),
            TagBy::Requester => (true, false),
            TagBy::RequesterPasid => (true, true),
        };
        let key = (
            space,
            if by_requester { requester } else { Requester::NONE },
            if by_pasid { pasid } else { Pasid::NONE },
        );
        let tag = match self.tags.get(&key) {
            Some(tag) => *tag,
            None => {
                if self.next_tag >= Tag::LIMIT {
                    return Err(TooManyTags);
                }
                let tag = Tag(self.next_tag);
                self.next_tag += 1;
                self.tags.insert(key, tag);
                self.spaces[space.0 as usize].tags.push(tag);
                tag
            }
        };
        Ok(Some(Route { device, space, tag }))
    }
}
