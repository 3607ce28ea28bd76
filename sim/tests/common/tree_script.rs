//! Random scripts of tree operations.
#![allow(dead_code)]

use ioasim_sim::parent_change::hardware::Family;
use proptest::collection::vec;
use proptest::prelude::*;

/// Sync policies of user-managed nodes.
pub const SYNCS: usize = 4;

#[derive(Clone, Debug)]
pub enum Op {
    /// A page whose last change has not been invalidated.
    RequestStale {
        node: usize,
        pick: usize,
        write: bool,
    },
    Create {
        parent: usize,
        user: bool,
        nest: bool,
        sync: usize,
        policy: usize,
    },
    Destroy {
        node: usize,
    },
    Map {
        node: usize,
        page: u64,
        out: u64,
        pages: u64,
        perm: u8,
    },
    Unmap {
        node: usize,
        page: u64,
        pages: u64,
    },
    /// A host-managed area, or a page of a user-managed table.
    UnmapMapped {
        node: usize,
        pick: usize,
    },
    /// A page that something leads from, moved in place.
    Remap {
        node: usize,
        pick: usize,
        out: u64,
    },
    /// A page, to a page that the parent maps.
    MapInto {
        node: usize,
        page: u64,
        pick: usize,
    },
    InvalidateMapped {
        node: usize,
        pick: usize,
    },
    Bind {
        node: usize,
    },
    Invalidate {
        node: usize,
        page: u64,
        pages: u64,
    },
    InvalidateAll {
        node: usize,
    },
    Attach {
        device: u32,
        node: usize,
    },
    Detach {
        device: u32,
    },
    Request {
        node: usize,
        page: u64,
        write: bool,
    },
    RequestMapped {
        node: usize,
        pick: usize,
        write: bool,
    },
    Step {
        budget: u64,
    },
}

#[derive(Clone, Debug)]
pub struct Script {
    /// Levels of the tree and which of the legal placements.
    pub depth: usize,
    pub placement: usize,
    pub family: Family,
    pub small_caches: bool,
    /// Specification of the first nodes, one per level.
    pub chain: Vec<(bool, usize, usize)>,
    pub ops: Vec<Op>,
}

fn page() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..6u64, 2 => 508..516u64, 1 => Just(1024u64)]
}

fn pages() -> impl Strategy<Value = u64> {
    prop_oneof![20 => 1..4u64, 3 => Just(6u64), 1 => Just(512u64)]
}

fn op() -> impl Strategy<Value = Op> {
    let node = || prop_oneof![3 => 0..3usize, 1 => 0..8usize];
    prop_oneof![
        2 => (node(), any::<bool>(), any::<bool>(), 0..SYNCS, 0..6usize).prop_map(
            |(parent, user, nest, sync, policy)| Op::Create { parent, user, nest, sync, policy }
        ),
        1 => node().prop_map(|node| Op::Destroy { node }),
        10 => (node(), page(), page(), pages(), 1..4u8).prop_map(
            |(node, page, out, pages, perm)| Op::Map { node, page, out, pages, perm: perm | 1 }
        ),
        2 => (node(), 0..3u64, 0..3u64).prop_map(
            |(node, a, b)| Op::Map { node, page: a * 512, out: b * 512, pages: 512, perm: 3 }
        ),
        6 => (node(), page(), pages())
            .prop_map(|(node, page, pages)| Op::Unmap { node, page, pages }),
        6 => (node(), 0..64usize).prop_map(|(node, pick)| Op::UnmapMapped { node, pick }),
        4 => (node(), 0..64usize, page()).prop_map(|(node, pick, out)| Op::Remap { node, pick, out }),
        8 => (node(), page(), 0..64usize)
            .prop_map(|(node, page, pick)| Op::MapInto { node, page, pick }),
        4 => (node(), 0..64usize).prop_map(|(node, pick)| Op::InvalidateMapped { node, pick }),
        1 => (node(), 0..3u64)
            .prop_map(|(node, block)| Op::Unmap { node, page: block * 512, pages: 512 }),
        1 => node().prop_map(|node| Op::Bind { node }),
        5 => (node(), page(), pages())
            .prop_map(|(node, page, pages)| Op::Invalidate { node, page, pages }),
        1 => node().prop_map(|node| Op::InvalidateAll { node }),
        1 => (0..3u32, node()).prop_map(|(device, node)| Op::Attach { device, node }),
        1 => (0..3u32).prop_map(|device| Op::Detach { device }),
        6 => (node(), page(), any::<bool>())
            .prop_map(|(node, page, write)| Op::Request { node, page, write }),
        12 => (node(), 0..64usize, any::<bool>())
            .prop_map(|(node, pick, write)| Op::RequestMapped { node, pick, write }),
        12 => (node(), 0..64usize, any::<bool>())
            .prop_map(|(node, pick, write)| Op::RequestStale { node, pick, write }),
        1 => (0..40u64).prop_map(|budget| Op::Step { budget }),
    ]
}

pub fn script() -> impl Strategy<Value = Script> {
    let family =
        prop_oneof![Just(Family::IntelVtd), Just(Family::ArmSmmuV3), Just(Family::RiscvIommu)];
    let level = (any::<bool>(), 0..SYNCS, 0..6usize);
    (1..4usize, 0..3usize, family, any::<bool>(), vec(level, 3), vec(op(), 1..80)).prop_map(
        |(depth, placement, family, small_caches, chain, ops)| Script {
            depth,
            placement,
            family,
            small_caches,
            chain,
            ops,
        },
    )
}
