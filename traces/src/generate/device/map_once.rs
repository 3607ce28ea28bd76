//! A GPU or an RDMA card: memory is mapped once, in pages as large as it
//! allows, and used for as long as the device runs.
//!
//! After memory registration (R: drivers/infiniband/core/umem.c maps all of a
//! region as one scatter list) and GPU drivers' pinned buffers.

use ioasim_events::Flags;
use rand::SeedableRng;
use rand::distr::Distribution as _;
use rand_distr::Zipf;
use rand_pcg::Pcg64;

use super::{Device, chance};
use crate::generate::choose::below;
use crate::generate::error::{OptionError, limit};
use crate::generate::linux::{Dma, DmaOptions, Frames, Out, Side};

/// Parameters. All defaults are assumptions (A) unless a source is named.
#[derive(Clone, Debug, PartialEq)]
pub struct MapOnceOptions {
    /// Regions. Default 16.
    pub regions: u64,
    /// Bytes of a region. Default 256 MiB.
    pub region: u64,
    /// Bytes in one piece of memory: 4096, 2 MiB or 1 GiB. Default 2 MiB (R:
    /// x86-64 transparent huge pages).
    pub page: u64,
    /// Bytes of a transfer. Default 64 KiB.
    pub transfer: u64,
    /// Bytes of one request: what the device asks a translation for. Default
    /// 4,096.
    pub request: u64,
    /// Exponent of the Zipf distribution of transfers over places. Default 0:
    /// all alike.
    pub zipf: f64,
    /// Share of transfers that write. Default 0.5.
    pub writes: f64,
    /// Bytes per ns that the device moves. Default 12.5 (100 Gb/s).
    pub bytes_per_ns: f64,
}

impl Default for MapOnceOptions {
    fn default() -> MapOnceOptions {
        MapOnceOptions {
            regions: 16,
            region: 256 << 20,
            page: 2 << 20,
            transfer: 64 << 10,
            request: 4096,
            zipf: 0.0,
            writes: 0.5,
            bytes_per_ns: 12.5,
        }
    }
}

impl MapOnceOptions {
    /// log2 of the pages of guest memory: twice what is used, so that it is
    /// scattered.
    pub(super) fn frame_bits(&self) -> u32 {
        (self.regions * self.region / 2048).next_power_of_two().trailing_zeros()
    }

    pub(super) fn check(&self) -> Result<(), OptionError> {
        if ![4096, 2 << 20, 1 << 30].contains(&self.page) {
            return Err(limit("--page", self.page, "4K, 2M or 1G"));
        }
        if !(self.page..=1 << 40).contains(&self.region) || !self.region.is_multiple_of(self.page) {
            return Err(limit("--region", self.region, "a multiple of --page, at most 1024G"));
        }
        let pieces = self.regions.saturating_mul(self.region / self.page);
        if self.regions == 0 || pieces > 1 << 24 {
            return Err(limit("--regions", self.regions, "at least 1, and at most 16777216 pages"));
        }
        if !(64..=self.region).contains(&self.transfer) || !self.transfer.is_multiple_of(64) {
            return Err(limit("--transfer", self.transfer, "64 bytes to --region, in steps of 64"));
        }
        if !(64..=1 << 20).contains(&self.request) {
            return Err(limit("--request", self.request, "64 bytes to 1M"));
        }
        if !(0.0..=10.0).contains(&self.zipf) {
            return Err(limit("--zipf", self.zipf, "from 0 to 10"));
        }
        if !(0.0..=1.0).contains(&self.writes) {
            return Err(limit("--writes", self.writes, "a share from 0 to 1"));
        }
        if !(self.bytes_per_ns > 0.0 && self.bytes_per_ns <= 10_000.0) {
            return Err(limit("--bytes-per-ns", self.bytes_per_ns, "above 0 and at most 10000"));
        }
        Ok(())
    }

    pub(super) fn parameters(&self) -> Vec<(&'static str, String)> {
        vec![
            ("regions", self.regions.to_string()),
            ("region_bytes", self.region.to_string()),
            ("page_bytes", self.page.to_string()),
            ("transfer_bytes", self.transfer.to_string()),
            ("request_bytes", self.request.to_string()),
            ("zipf_exponent", self.zipf.to_string()),
            ("write_share", self.writes.to_string()),
            ("rate_bytes_per_ns", self.bytes_per_ns.to_string()),
        ]
    }
}

/// The device.
#[derive(Debug)]
pub(super) struct MapOnce {
    options: MapOnceOptions,
    dma: Dma,
    rng: Pcg64,
    ranks: Option<Zipf<f64>>,
    /// IOVA of each region, GPA of each of its pages.
    regions: Vec<(u64, Vec<u64>)>,
    now: f64,
}

impl MapOnce {
    pub fn new(options: MapOnceOptions, dma: &DmaOptions, side: Side, seed: u64) -> MapOnce {
        let mut dma = Dma::new(dma, side);
        let frames = Frames::new(options.frame_bits());
        let mut number = 0;
        let regions = (0..options.regions)
            .map(|_| {
                let iova = dma.iova(0, options.region);
                let pages = (0..options.region / options.page)
                    .map(|_| {
                        number += 1;
                        frames.huge(number, options.page)
                    })
                    .collect();
                (iova, pages)
            })
            .collect();
        let places = options.regions * (options.region / options.transfer).max(1);
        let ranks =
            if options.zipf > 0.0 { Zipf::new(places as f64, options.zipf).ok() } else { None };
        MapOnce { rng: Pcg64::seed_from_u64(seed), options, dma, ranks, regions, now: 0.0 }
    }
}

impl Device for MapOnce {
    fn begin(&mut self, out: &mut Out) {
        self.dma.attach(out, 0);
        for (iova, pages) in &self.regions {
            for (i, &gpa) in pages.iter().enumerate() {
                let at = iova + i as u64 * self.options.page;
                self.dma.map_at(out, 0, 0, at, gpa, self.options.page);
            }
            self.dma.sync_map(out, 0, 0, *iova, self.options.region);
        }
    }

    fn now(&self) -> u64 {
        self.now as u64
    }

    fn step(&mut self, out: &mut Out) {
        let o = &self.options;
        let per_region = (o.region / o.transfer).max(1);
        let places = o.regions * per_region;
        let place = match &self.ranks {
            // Neighbours in rank are no neighbours in memory.
            Some(zipf) => (zipf.sample(&mut self.rng) as u64).wrapping_mul(0x9e37_79b1) % places,
            None => below(&mut self.rng, places),
        };
        let (iova, pages) = &self.regions[(place / per_region) as usize];
        let start = place % per_region * o.transfer;
        let right = if chance(&mut self.rng, o.writes) { Flags::WRITE } else { Flags::READ };
        let (mut at, end) = (start, start + o.transfer);
        while at < end {
            // A request crosses neither its own size nor a page.
            let bytes = (o.request - at % o.request).min(end - at).min(o.page - at % o.page);
            let gpa = pages[(at / o.page) as usize] + at % o.page;
            let now = self.now as u64;
            out.events.push(self.dma.side.dma(now, right, iova + at, bytes, gpa));
            self.now += bytes as f64 / o.bytes_per_ns;
            at += bytes;
        }
    }
}
