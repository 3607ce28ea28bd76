//! The end of a run: what happened, and whether the books agree.

use super::costs::Action;
use super::cpus::Causes;
use super::observe::Observer;
use super::stats::summary;
use super::world::World;
use crate::config::LoopMode;
use crate::events::Requester;
use crate::results::timing::{
    DeviceTlbCounters, DeviceUse, Latency, ResourceUse, TimingChecks, TimingResult, VcpuTime,
};
use crate::time::{Ps, Station};

impl<O: Observer> World<O> {
    /// Ends the run.
    pub fn finish(mut self, device_tlb: DeviceTlbCounters) -> TimingResult {
        if !self.measuring {
            // The warm-up covered all.
            self.measure();
        }
        self.run_out();
        self.book_hits();
        let end = self.end.max(self.queue.now());
        let elapsed = end.since(self.measured_from);
        let mut checks = TimingChecks {
            requests_in: self.requests_in,
            requests_done: self.requests_done,
            requests_in_flight: self.ops.requests_in_flight(),
            cpu_ops_in: self.cpu_ops_in,
            cpu_ops_done: self.cpu_ops_done,
            stuck: self.stuck,
            ..TimingChecks::default()
        };
        let mut resources = vec![
            used("walkers", self.walkers.station_mut(), end, elapsed, &mut checks),
            used("invalidation-queue", &mut self.lock, end, elapsed, &mut checks),
            used("vmm", &mut self.vmm, end, elapsed, &mut checks),
        ];
        if let Some(limit) = &mut self.memory.limit {
            resources.push(used("memory", limit, end, elapsed, &mut checks));
        }
        resources.retain(|r| r.arrivals > 0);
        let part = |ps: u128| if elapsed == Ps::ZERO { 0.0 } else { ps as f64 / elapsed.0 as f64 };
        let devices = self.devices.iter().map(|d| {
            checks.overbusy_resources += (d.link_busy() > elapsed) as u64;
            DeviceUse {
                device: match d.id {
                    Requester::NONE => "all".into(),
                    id => id.to_string(),
                },
                requests: d.requests,
                link_utilisation: part(d.link_busy().0 as u128),
                in_flight_mean: part(d.latency),
                starved_ns: d.starved.ns(),
            }
        });
        let devices = devices.collect();
        let requests: u64 = self.dma.all.count();
        let areas = self.queue_areas(end);
        let series = self.dma.series(&self.queues, &areas, end);
        TimingResult {
            mode: match self.config.mode {
                LoopMode::OpenLoop => "open-loop".into(),
                LoopMode::ClosedLoop => "closed-loop".into(),
            },
            elapsed_ns: elapsed.ns(),
            warm_up_events: self.config.warm_up_events,
            requests_per_second: part(u128::from(requests)) * 1e12,
            gbps: part(u128::from(self.dma.bytes) * 8) * 1e3,
            latency: Latency {
                dma: summary(&self.dma.all),
                walk: summary(&self.walk_latency),
                invalidation: summary(&self.action_latency[Action::Sync as usize]),
                map_invalidation: summary(&self.action_latency[Action::MapSync as usize]),
                map: summary(&self.action_latency[Action::Map as usize]),
                unmap: summary(&self.action_latency[Action::Unmap as usize]),
            },
            classes: self.dma.classes(&self.times),
            resources,
            devices,
            vcpus: self.vcpu_time(elapsed, &mut checks),
            device_tlb,
            checks,
            series,
            scheduled_events: self.queue.scheduled(),
        }
    }

    fn vcpu_time(&self, elapsed: Ps, checks: &mut TimingChecks) -> VcpuTime {
        let mut sum = VcpuTime::default();
        let (mut busy, mut busiest) = (Ps::ZERO, Ps::ZERO);
        for cpu in self.cpus.iter().filter(|c| !c.host) {
            sum.vcpus += 1;
            cpu.causes.add_to(&mut sum);
            let total = Causes::total(&cpu.causes);
            checks.overbusy_resources += (total > elapsed) as u64;
            busy += total;
            busiest = busiest.max(total);
        }
        sum.busiest_ns = busiest.ns();
        let all = elapsed.times(sum.vcpus);
        sum.utilisation = if all == Ps::ZERO { 0.0 } else { busy.0 as f64 / all.0 as f64 };
        sum
    }
}

/// What a station reports, and its laws.
fn used<J>(
    name: &str,
    station: &mut Station<J>,
    end: Ps,
    elapsed: Ps,
    checks: &mut TimingChecks,
) -> ResourceUse {
    let servers = station.servers().unwrap_or(0);
    let usage = &mut station.usage;
    usage.settle(end);
    let residual = usage.littles_residual(end).unsigned_abs();
    let residual = u64::try_from(residual).unwrap_or(u64::MAX);
    checks.littles_law_residual_ps = checks.littles_law_residual_ps.max(residual);
    let most = u128::from(elapsed.0) * u128::from(servers);
    checks.overbusy_resources += (servers > 0 && usage.busy.area() > most) as u64;
    let mean = |area: u128| if elapsed == Ps::ZERO { 0.0 } else { area as f64 / elapsed.0 as f64 };
    ResourceUse {
        name: name.into(),
        servers,
        utilisation: match servers {
            0 => 0.0,
            n => mean(usage.busy.area()) / n as f64,
        },
        busy_mean: mean(usage.busy.area()),
        queue_mean: mean(usage.queue.area()),
        queue_max: usage.queue.most(),
        arrivals: usage.arrivals,
        waited: usage.waited,
        wait_mean_ns: usage.mean_wait().unwrap_or(0.0) / 1000.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layer, resolve};
    use crate::timed::observe::Unobserved;

    /// A run of 1 us in which nothing happens, but for what `spoil` does.
    fn checks(spoil: impl Fn(&mut World<Unobserved>)) -> TimingChecks {
        let settings = ["time.enabled=true".to_string()];
        let config = resolve(&Layer::Preset("intel-vtd".into()), &settings).unwrap();
        let mut world = World::new(&config, Unobserved);
        spoil(&mut world);
        world.queue.advance(Ps::from_ns(1000));
        world.finish(DeviceTlbCounters::default()).checks
    }

    /// Every law can be broken, and each is told apart.
    #[test]
    fn books_that_do_not_agree_are_found() {
        assert_eq!(checks(|_| {}).broken(), [""; 0]);
        let broken = |spoil: &dyn Fn(&mut World<Unobserved>), word: &str| {
            let broken = checks(spoil).broken();
            assert!(broken.len() == 1 && broken[0].contains(word), "{word}: {broken:?}");
        };
        broken(&|w| w.requests_in += 1, "requests came");
        broken(&|w| w.requests_done += 1, "requests came");
        broken(&|w| w.cpu_ops_in += 1, "operations of vCPUs");
        broken(&|w| w.stuck += 1, "never able to start");
        // A job that came is in one of the books only.
        broken(&|w| w.lock.usage.arrive(Ps::ZERO), "Little's law");
        broken(&|w| w.walkers.station_mut().usage.queue.add(Ps::ZERO, 1), "Little's law");
        // Two jobs in service at the one server.
        let twice = |w: &mut World<Unobserved>| {
            w.vmm.usage.arrive(Ps::ZERO);
            w.vmm.usage.arrive(Ps::ZERO);
            w.vmm.usage.busy.add(Ps::ZERO, 2);
        };
        broken(&twice, "busy for longer");
    }
}
