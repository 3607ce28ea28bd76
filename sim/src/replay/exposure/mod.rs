//! How long after an unmap something can still translate into what it removed.
//!
//! An unmap is *open* as long as an IOTLB entry, a shadow entry or a nested
//! cache entry gives a translation that the unmap removed and that no later map
//! has made valid again. Each such entry is a [`Witness`] of exactly the unmap
//! that removed its translation, so the memory needed is bounded by what the
//! modelled caches and shadows hold. Witnesses are looked at only when
//! something may have removed them: an invalidation, an eviction, an operation
//! on the shadow, a map. Device TLBs are not modelled.

mod state;

pub(super) use state::Exposure;

use state::{Piece, Witness};

use super::engine::Engine;
use super::spaces::{Route, SpaceId};
use crate::cache::{Key, Store, Tag};
use crate::config::Nesting;
use crate::events::{PAGE_MASK, PAGE_SIZE, PageSize};
use crate::results::StaleDma;

/// Accesses through stale translations that are listed.
const LISTED: usize = 20;

impl<S: Store> Engine<S> {
    /// What a walk of all levels gives now.
    fn fresh(&self, space: SpaceId, addr: u64) -> Option<u64> {
        let gpa = match (&self.spaces.get(space).child, self.config.nesting) {
            (Some(child), Nesting::Hardware | Nesting::Software) => {
                child.lookup(addr)?.translate(addr)
            }
            _ => addr,
        };
        self.parent.lookup(gpa).map(|l| l.translate(gpa))
    }

    /// True if some page of the witness is not what a walk gives now.
    fn is_stale(&self, w: &Witness) -> bool {
        let Piece { iova, out, len } = w.piece;
        (0..len)
            .step_by(PAGE_SIZE as usize)
            .any(|at| self.fresh(w.space, iova + at) != Some(out + at))
    }

    /// Notes what the child's unmap of `[addr, addr + len)` is about to remove.
    pub(super) fn before_child_unmap(&mut self, space: SpaceId, addr: u64, len: u64) {
        let Some(exposure) = &mut self.exposure else { return };
        exposure.removed.clear();
        let Some(child) = &self.spaces.get(space).child else { return };
        if self.config.nesting == Nesting::None || len == 0 {
            return;
        }
        let (start, end) = (addr & !PAGE_MASK, addr.saturating_add(len - 1) | PAGE_MASK);
        child.visit(start, end, &mut |at, leaf| {
            let (mut iova, last) = (at.max(start), (at + (leaf.size.bytes() - 1)).min(end));
            while iova <= last {
                let gpa = leaf.translate(iova);
                let host = self.parent.lookup(gpa);
                let page = host.map_or(PAGE_SIZE, |l| l.size.bytes());
                let len = (page - (gpa & (page - 1))).min(last - iova + 1);
                if let Some(out) = host.map(|l| l.translate(gpa)) {
                    match exposure.removed.last_mut() {
                        Some(p) if p.end() == iova && p.out + p.len == out => p.len += len,
                        _ => exposure.removed.push(Piece { iova, out, len }),
                    }
                }
                iova += len;
            }
            true
        });
    }

    /// After the child's unmap, and all that the configuration does at it.
    pub(super) fn child_unmapped(&mut self, space: SpaceId, event: u64, time_ns: u64) {
        let Some(mut exposure) = self.exposure.take() else { return };
        let removed = std::mem::take(&mut exposure.removed);
        if let (Some(first), Some(last)) = (removed.first(), removed.last()) {
            let (start, end) = (first.iova, last.end());
            exposure.result.unmaps += 1;
            let unmap = exposure.open(event, time_ns);
            // Pieces that overlap `[at, at + len)` and lead where it leads.
            let shared = |at: u64, len: u64, out: u64| {
                let from = removed.partition_point(|p| p.end() <= at);
                let near = removed[from..].iter().take_while(move |p| p.iova < at + len);
                near.filter_map(move |p| p.shared(at, len, out))
            };
            let tags = &self.spaces.get(space).tags;
            if self.may_be_cached(tags, start, end) {
                self.iotlb.for_each(|key, value| {
                    if key.overlaps(start, end) && tags.contains(&key.tag()) {
                        for piece in shared(key.base(), key.size().bytes(), value.out()) {
                            exposure.add_cached(key, Witness { unmap, space, piece });
                        }
                    }
                });
            }
            self.visit_shadow(space, start, end, &mut |at, len, out| {
                for piece in shared(at, len, out) {
                    exposure.add_shadowed(Witness { unmap, space, piece });
                }
            });
            if exposure.open[unmap as usize].left == 0 {
                exposure.free.push(unmap);
                exposure.closed(0, 0);
            }
        }
        exposure.removed = removed;
        self.exposed = exposure.any_open();
        self.exposure = Some(exposure);
    }

    /// False only if no page of a small range is in the IOTLB.
    fn may_be_cached(&self, tags: &[Tag], start: u64, end: u64) -> bool {
        if (end - start) / PAGE_SIZE * tags.len() as u64 > 32 {
            return true;
        }
        tags.iter().any(|tag| {
            (start..end).step_by(PAGE_SIZE as usize).any(|at| {
                PageSize::ALL.into_iter().any(|size| self.iotlb.holds(Key::new(*tag, size, at)))
            })
        })
    }

    /// Notes the host memory that the parent's unmap is about to give up.
    pub(super) fn before_parent_unmap(&mut self, gpa: u64, len: u64) {
        let Some(exposure) = &mut self.exposure else { return };
        exposure.removed.clear();
        let (Some(table), 1..) = (self.parent.table(), len) else { return };
        let (start, end) = (gpa & !PAGE_MASK, gpa.saturating_add(len - 1) | PAGE_MASK);
        table.visit(start, end, &mut |at, leaf| {
            let (from, last) = (at.max(start), (at + (leaf.size.bytes() - 1)).min(end));
            let (out, len) = (leaf.translate(from), last - from + 1);
            exposure.removed.push(Piece { iova: from, out, len });
            true
        });
    }

    /// After the parent's unmap, and all that the configuration does at it.
    /// Whatever leads into the memory that was given up is a witness, unless a
    /// walk of all levels leads there too (an alias).
    pub(super) fn parent_unmapped(&mut self, event: u64, time_ns: u64) {
        let Some(mut exposure) = self.exposure.take() else { return };
        let mut removed = std::mem::take(&mut exposure.removed);
        if !removed.is_empty() {
            exposure.result.unmaps += 1;
            exposure.result.parent_unmaps += 1;
            let unmap = exposure.open(event, time_ns);
            removed.sort_unstable_by_key(|p| p.out);
            // The part of an entry's output that was given up, if it is stale.
            let (engine, removed) = (&*self, &removed);
            let stale = &|space, at: u64, len: u64, out: u64| {
                let given_up =
                    removed.iter().filter(move |p| p.out < out + len && out < p.out + p.len);
                given_up.filter_map(move |p| {
                    let (from, to) = (p.out.max(out), (p.out + p.len).min(out + len));
                    let piece = Piece { iova: at + (from - out), out: from, len: to - from };
                    let w = Witness { unmap, space, piece };
                    engine.is_stale(&w).then_some(w)
                })
            };
            for space in self.spaces.ids() {
                let tags = &self.spaces.get(space).tags;
                self.iotlb.for_each(|key, value| {
                    if tags.contains(&key.tag()) {
                        for w in stale(space, key.base(), key.size().bytes(), value.out()) {
                            exposure.add_cached(key, w);
                        }
                    }
                });
                if let Some(shadow) = &self.spaces.get(space).shadow {
                    shadow.table().visit(0, u64::MAX, &mut |at, leaf| {
                        for w in stale(space, at, leaf.size.bytes(), leaf.out) {
                            exposure.add_shadowed(w);
                        }
                        true
                    });
                }
            }
            let space = super::spaces::PARENT_SPACE;
            self.caches.for_each_nested(|gpa, leaf| {
                let at = gpa & !(leaf.size.bytes() - 1);
                for w in stale(space, at, leaf.size.bytes(), leaf.out) {
                    exposure.open[unmap as usize].left += 1;
                    exposure.nested.push(w);
                }
            });
            if exposure.open[unmap as usize].left == 0 {
                exposure.free.push(unmap);
                exposure.closed(0, 0);
            }
        }
        exposure.removed = removed;
        self.exposed = exposure.any_open();
        self.exposure = Some(exposure);
    }

    /// Closes what nothing leads into any more. `everything`: shadows may have
    /// changed without an operation, or mappings without an unmap.
    pub(super) fn look_at_exposure(&mut self, event: u64, time_ns: u64, everything: bool) {
        let Some(mut exposure) = self.exposure.take() else { return };
        let seen = self.iotlb.evictions + self.iotlb.invalidated;
        if everything || seen != exposure.seen || !exposure.touched.is_empty() {
            exposure.seen = seen;
            let mut cached = std::mem::take(&mut exposure.cached);
            cached.retain(|(key, w)| {
                let alive = self.iotlb.holds(*key) && self.is_stale(w);
                if !alive {
                    exposure.gone(w.unmap, event, time_ns);
                }
                alive
            });
            exposure.cached = cached;
        }
        if everything {
            let all = self.spaces.ids().map(|id| (id, 0, u64::MAX));
            exposure.touched.clear();
            exposure.touched.extend(all);
        }
        let mut dead = Vec::new();
        for (space, start, len) in std::mem::take(&mut exposure.touched) {
            for (key, w) in exposure.near(space, start, start.saturating_add(len)) {
                if w.piece.end() > start && !(self.is_shadowed(w) && self.is_stale(w)) {
                    dead.push((*key, w.unmap));
                }
            }
            for (key, unmap) in dead.drain(..) {
                exposure.shadowed.remove(&key);
                exposure.gone(unmap, event, time_ns);
            }
        }
        let mut nested = std::mem::take(&mut exposure.nested);
        nested.retain(|w| {
            let mut alive = false;
            self.caches.for_each_nested(|gpa, leaf| {
                let at = gpa & !(leaf.size.bytes() - 1);
                alive |= w.piece.shared(at, leaf.size.bytes(), leaf.out).is_some();
            });
            alive &= self.is_stale(w);
            if !alive {
                exposure.gone(w.unmap, event, time_ns);
            }
            alive
        });
        exposure.nested = nested;
        self.exposed = exposure.any_open();
        self.exposure = Some(exposure);
    }

    fn is_shadowed(&self, w: &Witness) -> bool {
        let mut found = false;
        self.visit_shadow(w.space, w.piece.iova, w.piece.end(), &mut |at, len, out| {
            found |= w.piece.shared(at, len, out).is_some();
        });
        found
    }

    /// An access while some unmap is open: whether it used a translation that
    /// is stale, and what its walk put into the IOTLB or displaced there.
    #[cold]
    pub(super) fn exposed_dma(
        &mut self,
        (route, tag, addr): (Route, Tag, u64),
        (out, hit): (Option<u64>, bool),
        event: u64,
        time_ns: u64,
    ) {
        let space = route.space;
        let fresh = self.fresh(space, addr);
        let stale = out.filter(|out| fresh != Some(*out));
        let Some(exposure) = &mut self.exposure else { return };
        if let Some(out) = stale {
            let cached = exposure
                .cached
                .iter()
                .find(|(k, w)| k.tag() == tag && w.space == space && w.piece.holds(addr, out));
            let shadowed = || exposure.near(space, addr, addr.saturating_add(1)).map(|(_, w)| w);
            let found = cached
                .map(|(_, w)| *w)
                .or_else(|| shadowed().find(|w| w.piece.holds(addr, out)).copied())
                .or_else(|| exposure.nested.iter().find(|w| w.piece_leads_to(out)).copied());
            if let Some(w) = found {
                exposure.result.stale_dma += 1;
                if exposure.result.first_stale_dma.len() < LISTED {
                    exposure.result.first_stale_dma.push(StaleDma {
                        event,
                        unmap_event: exposure.open[w.unmap as usize].event,
                        device: self.spaces.device_ids[route.device as usize].to_string(),
                        iova: addr,
                        out,
                    });
                }
                if !hit {
                    self.filled_from_stale(space, tag, addr, w, out);
                }
            }
        }
        if !hit {
            // An entry without the rights may have been overwritten.
            let rewritten = self.exposure.as_ref().is_some_and(|e| {
                e.cached.iter().any(|(k, _)| {
                    k.tag() == tag && k.overlaps(addr, addr.saturating_add(1)) && stale.is_none()
                })
            });
            if rewritten {
                self.drop_rewritten(event, time_ns);
            }
            self.look_at_exposure(event, time_ns, false);
        }
    }

    /// A miss took a stale translation from the shadow (or the nested cache)
    /// into the IOTLB: that entry is a witness too.
    fn filled_from_stale(&mut self, space: SpaceId, tag: Tag, addr: u64, w: Witness, out: u64) {
        let sizes = PageSize::ALL.into_iter();
        let Some(size) = sizes.into_iter().find(|s| self.iotlb.holds(Key::new(tag, *s, addr)))
        else {
            return;
        };
        let Some(exposure) = &mut self.exposure else { return };
        let (key, within) = (Key::new(tag, size, addr), addr & (size.bytes() - 1));
        let (base, bytes, out) = (key.base(), size.bytes(), out - within);
        let near = exposure.near(space, base, base + bytes);
        let mut new: Vec<Witness> = near.map(|(_, w)| *w).collect();
        if new.is_empty() {
            // From the nested cache.
            new.push(Witness { piece: Piece { iova: base, out, len: bytes }, ..w });
        }
        for old in new {
            if let Some(piece) = old.piece.shared(base, bytes, out) {
                exposure.add_cached(key, Witness { unmap: old.unmap, space, piece });
            }
        }
    }

    /// Drops witnesses whose IOTLB entries have got another value.
    fn drop_rewritten(&mut self, event: u64, time_ns: u64) {
        let Some(mut exposure) = self.exposure.take() else { return };
        let mut cached = std::mem::take(&mut exposure.cached);
        let mut alive = vec![false; cached.len()];
        self.iotlb.for_each(|key, value| {
            for (alive, (k, w)) in alive.iter_mut().zip(&cached) {
                let same = || w.piece.shared(key.base(), key.size().bytes(), value.out());
                *alive |= *k == key && same().is_some();
            }
        });
        let mut alive = alive.into_iter();
        cached.retain(|(_, w)| {
            let alive = alive.next().unwrap_or(false);
            if !alive {
                exposure.gone(w.unmap, event, time_ns);
            }
            alive
        });
        exposure.cached = cached;
        self.exposure = Some(exposure);
    }
}
