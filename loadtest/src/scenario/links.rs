//! Link classes: what devices are connected by, and their form in a scenario.

use super::keys::Keys;

/// A link class.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Share of the devices.
    pub share: f64,
    /// Bits per second towards the device.
    pub down_bits_per_s: f64,
    /// Bits per second from it.
    pub up_bits_per_s: f64,
    /// Time to the edge and back, milliseconds.
    pub round_trip_ms: f64,
    /// Datagrams take up to so much longer each way, milliseconds.
    pub jitter_ms: f64,
    /// Share of datagrams that are lost.
    pub loss: f64,
    /// How many are lost in a row, on average.
    pub loss_run: f64,
    /// Share of datagrams that others overtake.
    pub reorder: f64,
    /// What may wait at the narrow place, in milliseconds of its rate.
    pub queue_ms: f64,
    /// Mean time between changes of the address that servers see, seconds; zero for never.
    pub rebind_s: f64,
}

/// A class by its usual numbers: name, Mb/s down and up, round trip, jitter and queue in ms, loss in percent and its run,
/// reordering in percent, seconds between changes of the address.
type Class = (&'static str, [f64; 2], [f64; 3], [f64; 2], f64, f64);

/// What a link class is if a scenario says only its name.
const CLASSES: [Class; 6] = [
    ("fibre", [200.0, 100.0], [10.0, 1.0, 50.0], [0.0, 1.0], 0.0, 0.0),
    ("cable", [80.0, 20.0], [20.0, 3.0, 150.0], [0.01, 1.0], 0.0, 0.0),
    ("lte", [20.0, 8.0], [60.0, 15.0, 300.0], [0.1, 2.0], 0.1, 120.0),
    ("dsl", [6.0, 1.0], [40.0, 2.0, 250.0], [0.05, 1.0], 0.0, 0.0),
    ("satellite", [10.0, 2.0], [600.0, 10.0, 600.0], [0.5, 3.0], 0.0, 0.0),
    ("wifi", [30.0, 15.0], [15.0, 10.0, 200.0], [2.0, 3.0], 0.5, 300.0),
];

impl Link {
    /// A class with what is usual for its name.
    pub(super) fn usual(name: &str, share: f64) -> Self {
        let known = CLASSES.iter().find(|(known, ..)| *known == name).unwrap_or(&CLASSES[0]);
        let (_, [down, up], [round_trip_ms, jitter_ms, queue_ms], [loss_percent, loss_run], reorder_percent, rebind_s) =
            *known;
        Self {
            name: name.to_owned(),
            share,
            down_bits_per_s: down * 1e6,
            up_bits_per_s: up * 1e6,
            round_trip_ms,
            jitter_ms,
            loss: loss_percent / 100.0,
            loss_run,
            reorder: reorder_percent / 100.0,
            queue_ms,
            rebind_s,
        }
    }

    /// As the devices' client makes it.
    pub(crate) fn made(&self) -> colibri_transport::Link {
        let us = |ms: f64| (ms * 1e3) as u32;
        colibri_transport::Link {
            down_bits_per_s: self.down_bits_per_s as u64,
            up_bits_per_s: self.up_bits_per_s as u64,
            delay_us: us(self.round_trip_ms / 2.0),
            jitter_us: us(self.jitter_ms),
            loss_ppm: (self.loss * 1e6) as u32,
            loss_run: self.loss_run.round() as u32,
            reorder_ppm: (self.reorder * 1e6) as u32,
            queue_us: us(self.queue_ms),
            rebind_us: (self.rebind_s * 1e6) as u64,
        }
    }
}

pub(super) fn read(keys: &mut Keys<'_>) -> Link {
    let name = keys.text("class", true);
    let is_known = CLASSES.iter().any(|(known, ..)| *known == name);
    if !(name.is_empty() || is_known || keys.has("down_mbit_per_s") && keys.has("round_trip_ms")) {
        let known = CLASSES.map(|(name, ..)| name).join(", ");
        keys.mistake("class", &format!("is `{name}`: {known}, or one with `down_mbit_per_s` and `round_trip_ms`"));
    }
    // A class of the scenario's own is clean unless it says otherwise.
    let clean = Link { jitter_ms: 0.0, queue_ms: 200.0, ..Link::usual("fibre", 1.0) };
    let usual = if is_known { Link::usual(&name, 1.0) } else { clean };
    let down = keys.number("down_mbit_per_s", Some(usual.down_bits_per_s / 1e6), 0.001, 1e6);
    let up = if is_known { usual.up_bits_per_s / 1e6 } else { down };
    let mut number = |key, usual, low, high| keys.number(key, Some(usual), low, high);
    Link {
        name,
        down_bits_per_s: down * 1e6,
        up_bits_per_s: number("up_mbit_per_s", up, 0.001, 1e6) * 1e6,
        round_trip_ms: number("round_trip_ms", usual.round_trip_ms, 0.0, 60_000.0),
        jitter_ms: number("jitter_ms", usual.jitter_ms, 0.0, 60_000.0),
        loss: number("loss_percent", usual.loss * 100.0, 0.0, 90.0) / 100.0,
        loss_run: number("loss_run", usual.loss_run, 1.0, 1_000.0),
        reorder: number("reorder_percent", usual.reorder * 100.0, 0.0, 90.0) / 100.0,
        queue_ms: number("queue_ms", usual.queue_ms, 1.0, 60_000.0),
        rebind_s: number("rebind_s", usual.rebind_s, 0.0, 1e6),
        share: keys.number("share", None, 0.0, 1e9),
    }
}
