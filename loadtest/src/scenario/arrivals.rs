//! The laws by which devices wake, and their form in a scenario.

use super::keys::Keys;
use crate::limits::{DURATION_S_MAX, RAMP_STAGES_MAX, TRACE_WAKES_MAX};

/// When devices wake. Times in seconds after the start.
#[derive(Debug, Clone, PartialEq)]
pub enum Arrivals {
    /// Each device polls for itself, at a phase of its own.
    Poll {
        /// Mean time between polls.
        interval_s: f64,
        /// Each gap varies by this share of the interval, either way.
        jitter: f64,
    },
    /// Polls thinned by the local time of 24 zones.
    Diurnal {
        /// Mean time between polls at the peak.
        interval_s: f64,
        /// As for a poll.
        jitter: f64,
        /// Length of a day.
        day_s: f64,
        /// Hour of local time at which most devices are awake.
        peak_hour: f64,
        /// Share of the peak's rate that is left at the trough.
        trough: f64,
    },
    /// Everybody once, within one window.
    Flash {
        /// When it begins.
        at_s: f64,
        /// How long it takes.
        within_s: f64,
    },
    /// The power comes back: everybody once, after an exponentially distributed time.
    Reboot {
        /// When the power comes back.
        at_s: f64,
        /// Mean time to start.
        spread_s: f64,
    },
    /// Everybody each time that the metadata expires.
    Herd {
        /// Life of the metadata.
        life_s: f64,
        /// Everybody within this time of the expiry.
        within_s: f64,
    },
    /// Devices that were never seen before, each once: a Poisson process.
    Cold {
        /// Mean arrivals per second.
        rate_per_s: f64,
    },
    /// A rollout: by each time so many percent have woken, evenly in between.
    Ramp {
        /// (time, percent), both rising.
        stages: Vec<(f64, f64)>,
    },
    /// Wakes that were written down.
    Trace {
        /// (time in microseconds, device), by time.
        wakes: Vec<(u64, u32)>,
    },
}

impl Arrivals {
    /// Name in a scenario.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Poll { .. } => "poll",
            Self::Diurnal { .. } => "diurnal",
            Self::Flash { .. } => "flash",
            Self::Reboot { .. } => "reboot",
            Self::Herd { .. } => "herd",
            Self::Cold { .. } => "cold",
            Self::Ramp { .. } => "ramp",
            Self::Trace { .. } => "trace",
        }
    }

    /// Whether a device wakes at most once.
    pub const fn is_once(&self) -> bool {
        matches!(self, Self::Flash { .. } | Self::Reboot { .. } | Self::Cold { .. } | Self::Ramp { .. })
    }
}

/// Reads `[arrivals]`.
pub(super) fn read(keys: &mut Keys<'_>) -> Arrivals {
    let kind = keys.text("kind", true);
    let most = DURATION_S_MAX;
    match kind.as_str() {
        "diurnal" => Arrivals::Diurnal {
            interval_s: keys.number("interval_s", None, 0.001, most),
            jitter: keys.number("jitter", Some(0.125), 0.0, 0.99),
            day_s: keys.number("day_s", Some(86_400.0), 1.0, most),
            peak_hour: keys.number("peak_hour", Some(20.0), 0.0, 24.0),
            trough: keys.number("trough", Some(0.2), 0.0, 1.0),
        },
        "flash" => Arrivals::Flash {
            at_s: keys.number("at_s", Some(0.0), 0.0, most),
            within_s: keys.number("within_s", None, 0.0, most),
        },
        "reboot" => Arrivals::Reboot {
            at_s: keys.number("at_s", Some(0.0), 0.0, most),
            spread_s: keys.number("spread_s", None, 0.0, most),
        },
        "herd" => Arrivals::Herd {
            life_s: keys.number("life_s", None, 0.001, most),
            within_s: keys.number("within_s", None, 0.0, most),
        },
        "cold" => Arrivals::Cold { rate_per_s: keys.number("rate_per_s", None, 1e-6, 1e9) },
        "ramp" => Arrivals::Ramp { stages: stages(keys) },
        "trace" => Arrivals::Trace { wakes: trace(keys) },
        other => {
            if !other.is_empty() && other != "poll" {
                let all = "poll, diurnal, flash, reboot, herd, cold, ramp or trace";
                keys.mistake("kind", &format!("is `{other}`: it must be {all}"));
            }
            Arrivals::Poll {
                interval_s: keys.number("interval_s", if other == "poll" { None } else { Some(1.0) }, 0.001, most),
                jitter: keys.number("jitter", Some(0.125), 0.0, 0.99),
            }
        }
    }
}

/// Pairs of numbers.
fn pairs(keys: &mut Keys<'_>, key: &str, what: &str) -> Vec<(f64, f64)> {
    let list = keys.list(key);
    let mut pairs = Vec::with_capacity(list.len());
    for (index, value) in list.into_iter().enumerate() {
        let number = |value: &toml::Value| value.as_float().or_else(|| value.as_integer().map(|number| number as f64));
        match value.as_array().map(Vec::as_slice) {
            Some([a, b]) if number(a).is_some() && number(b).is_some() => pairs.extend(number(a).zip(number(b))),
            _ => keys.mistake(&format!("{key}[{index}]"), &format!("must be {what}")),
        }
    }
    if pairs.is_empty() {
        keys.mistake(key, &format!("is needed: a list of {what}"));
    }
    pairs
}

fn stages(keys: &mut Keys<'_>) -> Vec<(f64, f64)> {
    let stages = pairs(keys, "stages", "[seconds, percent]");
    let rises = stages.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
    let fits =
        stages.iter().all(|(at, percent)| (0.0..=DURATION_S_MAX).contains(at) && (0.0..=100.0).contains(percent));
    if !rises || !fits || stages.len() > RAMP_STAGES_MAX {
        keys.mistake(
            "stages",
            &format!("must rise in time and percent, up to 100, in at most {RAMP_STAGES_MAX} stages"),
        );
    }
    stages
}

fn trace(keys: &mut Keys<'_>) -> Vec<(u64, u32)> {
    let pairs = pairs(keys, "wakes", "[seconds, device]");
    if pairs.len() > TRACE_WAKES_MAX {
        keys.mistake("wakes", &format!("has {} wakes: at most {TRACE_WAKES_MAX} can be replayed", pairs.len()));
    }
    let fits = |(at, device): &(f64, f64)| {
        (0.0..=DURATION_S_MAX).contains(at) && device.fract() == 0.0 && (0.0..f64::from(u32::MAX)).contains(device)
    };
    if !pairs.iter().all(fits) {
        keys.mistake("wakes", "must be times from 0 and numbers of devices from 0");
    }
    let mut wakes: Vec<_> = pairs.iter().map(|(at, device)| ((at * 1e6) as u64, *device as u32)).collect();
    wakes.sort_unstable();
    wakes
}
