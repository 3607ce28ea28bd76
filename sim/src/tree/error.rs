//! Why an operation on a tree is refused. The rules are iommufd's where it
//! has them (`include/uapi/linux/iommufd.h`, `drivers/iommu/iommufd`).

use super::NodeId;
use crate::events::{Pasid, Requester};
use crate::table::TableError;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// No such node, or it was destroyed (ENOENT).
    #[error("I/O address space {} does not exist", .0.0)]
    NoSuchNode(NodeId),
    /// A nested node needs a parent made for nesting
    /// (`IOMMU_HWPT_ALLOC_NEST_PARENT`).
    #[error("I/O address space {} was not made for nesting; create it with nest_parent", .0.0)]
    NotForNesting(NodeId),
    /// The placement has no level for the new node.
    #[error("the placement has {levels} levels; a child of node {} would be deeper", parent.0)]
    TooDeep {
        /// Parent of the new node.
        parent: NodeId,
        /// Levels of the placement.
        levels: usize,
    },
    /// The node cannot be destroyed (EBUSY).
    #[error("I/O address space {} is in use by {devices} devices and {children} children", node.0)]
    InUse {
        /// The node.
        node: NodeId,
        /// Devices attached.
        devices: usize,
        /// Children.
        children: usize,
    },
    /// The operation is for host-managed nodes.
    #[error("I/O address space {} is user-managed: its user writes the table itself", .0.0)]
    NotHostManaged(NodeId),
    /// The operation is for user-managed nodes.
    #[error("I/O address space {} is host-managed: map and unmap are the only way", .0.0)]
    NotUserManaged(NodeId),
    /// The sync policy does not fit the ownership.
    #[error("sync policy {policy} does not fit a {ownership} I/O address space")]
    SyncDoesNotFit {
        /// The policy.
        policy: &'static str,
        /// The ownership.
        ownership: &'static str,
    },
    /// No page table was bound.
    #[error("I/O address space {} has no page table bound", .0.0)]
    NotBound(NodeId),
    /// A map hits what is mapped (EEXIST).
    #[error("[{start:#x}, {end:#x}) overlaps the area at {area:#x}; unmap that first")]
    Overlap {
        /// First address.
        start: u64,
        /// Address after the last.
        end: u64,
        /// Start of the area that is in the way.
        area: u64,
    },
    /// An unmap would cut an area (ENOENT): "splitting or truncating ranges is
    /// not allowed".
    #[error("[{start:#x}, {end:#x}) covers only a part of the area at {area:#x}")]
    CutsArea {
        /// First address.
        start: u64,
        /// Address after the last.
        end: u64,
        /// Start of the area that would be cut.
        area: u64,
    },
    /// An unmap finds nothing (ENOENT).
    #[error("nothing is mapped in [{start:#x}, {end:#x})")]
    NothingMapped {
        /// First address.
        start: u64,
        /// Address after the last.
        end: u64,
    },
    /// Not whole pages, or nothing at all (EINVAL).
    #[error(
        "address {addr:#x} or length {len:#x} is no multiple of 4 KiB, or the range is empty or too long"
    )]
    Unaligned {
        /// The address.
        addr: u64,
        /// The length.
        len: u64,
    },
    /// The range hits where table pages lie (as a reserved IOVA range does).
    #[error("[{start:#x}, {end:#x}) hits the reserved range at {reserved:#x}")]
    Reserved {
        /// First address.
        start: u64,
        /// Address after the last.
        end: u64,
        /// First reserved address.
        reserved: u64,
    },
    /// The table refuses.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The device is attached already (EBUSY).
    #[error("device {:#x} PASID {:#x} is attached to node {}; detach it first", device.0, pasid.0, node.0)]
    AlreadyAttached {
        /// Requester.
        device: Requester,
        /// PASID.
        pasid: Pasid,
        /// Where.
        node: NodeId,
    },
    /// The device is not attached.
    #[error("device {:#x} PASID {:#x} is not attached", device.0, pasid.0)]
    NotAttached {
        /// Requester.
        device: Requester,
        /// PASID.
        pasid: Pasid,
    },
    /// A stage names a level that does not exist.
    #[error("stages name the level \"{level}\", which is not in levels")]
    UnknownLevel {
        /// The name.
        level: String,
    },
    /// A stage leaves out or repeats a level.
    #[error(
        "in stages, \"{level}\" does not lie directly below \"{after}\"; name all levels, deepest first"
    )]
    LevelsNotAdjacent {
        /// The level in the wrong place.
        level: String,
        /// The level named before it.
        after: String,
    },
    /// A level is in no stage.
    #[error("no stage contains the level \"{level}\"")]
    LevelMissing {
        /// The level.
        level: String,
    },
    /// More stages than the hardware walks.
    #[error(
        "the placement needs {stages} hardware stages and the hardware walks at most {limit}; merge adjacent levels"
    )]
    TooManyStages {
        /// Stages asked for.
        stages: usize,
        /// Stages that the hardware has.
        limit: usize,
    },
}
