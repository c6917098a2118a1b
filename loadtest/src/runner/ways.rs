//! How devices of a run reach the servers: the sockets that all of them share, or a link of their own; and what ails the devices
//! themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use colibri_common::{Clock, UnixSeconds};
use colibri_device::DeviceConfig;
use colibri_transport::{Client, ClientConfig, Link, Network, SharedSockets, TransportError};

use crate::draw::{Draw, Purpose};
use crate::limits::{CLIENT_SOCKETS, DURATION_S_MAX};
use crate::plan::PlannedWake;
use crate::scenario::{Fault, FaultKind, Scenario};

/// The devices' ways to the servers.
#[derive(Debug)]
pub(crate) struct Ways {
    config: ClientConfig,
    /// By link class; nothing if devices use the network that there is.
    links: Option<Vec<Link>>,
    seed: u64,
}

impl Ways {
    pub fn new(scenario: &Scenario, device: &DeviceConfig) -> Self {
        let network = Network::Shared(SharedSockets::new(CLIENT_SOCKETS));
        let mut config = ClientConfig { network, ..device.client() };
        if scenario.hold_connections {
            config.pool_idle_timeout = Duration::from_secs_f64(DURATION_S_MAX);
        }
        let links = scenario.shaped.then(|| scenario.links.iter().map(|link| link.made()).collect());
        Self { config, links, seed: scenario.seed }
    }

    /// The connections of a device for one wake.
    pub fn client(&self, planned: &PlannedWake) -> Result<Client, TransportError> {
        let mut config = self.config.clone();
        if let Some(link) = self.links.as_ref().and_then(|links| links.get(usize::from(planned.link))) {
            let wake = planned.wake;
            let mut draw = Draw::of(self.seed, Purpose::Weather, wake.device.into(), wake.number.into());
            config.network = Network::Link(*link, draw.next());
        }
        Client::new(config)
    }
}

/// What is wrong with all devices at the moment.
#[derive(Debug, Default)]
pub(crate) struct Ailments {
    skew_s: AtomicI64,
    disk_full: Arc<AtomicBool>,
}

impl Ailments {
    /// Begins or ends a fault of devices.
    pub fn set(&self, fault: &Fault, on: bool) {
        match fault.kind {
            FaultKind::ClockSkew => self.skew_s.store(if on { fault.by_s as i64 } else { 0 }, Ordering::Relaxed),
            FaultKind::DiskFull => self.disk_full.store(on, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Whether there is room on devices.
    pub fn disk_full(&self) -> Arc<AtomicBool> {
        self.disk_full.clone()
    }
}

/// The clock as devices see it.
pub(crate) struct DeviceClock {
    pub true_clock: Arc<dyn Clock>,
    pub ailments: Arc<Ailments>,
}

impl Clock for DeviceClock {
    fn now(&self) -> UnixSeconds {
        UnixSeconds(self.true_clock.now().0.saturating_add_signed(self.ailments.skew_s.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use colibri_common::ManualClock;

    use super::*;
    use crate::scenario::Place;

    #[test]
    fn clocks_are_wrong_while_the_fault_lasts() {
        let ailments = Arc::new(Ailments::default());
        let true_clock = Arc::new(ManualClock::new(UnixSeconds(1_000)));
        let clock = DeviceClock { true_clock, ailments: ailments.clone() };
        let skew = |by_s| Fault { kind: FaultKind::ClockSkew, place: Place::Devices, at_s: 0.0, for_s: 1.0, by_s };
        for (by_s, seen) in [(60.0, 1_060), (-60.0, 940), (-5_000.0, 0)] {
            ailments.set(&skew(by_s), true);
            assert_eq!(clock.now(), UnixSeconds(seen));
        }
        ailments.set(&skew(60.0), false);
        assert_eq!(clock.now(), UnixSeconds(1_000));
    }
}
