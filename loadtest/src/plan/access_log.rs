//! An edge's access log as a plan: who came when, and what is asked for how often.
//!
//! A request for `timestamp.json` is a wake; blobs that the same connection asks for until its next one are what that wake wants, each
//! of them a package of the scenario, the most popular first. Addresses become devices: connections of one address that follow each
//! other are one device, those at the same time are several behind one address. The log has whole seconds: within its second a wake
//! is put by a draw. Deliberately absent: sizes, which are those of the scenario.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, Read};

use serde::Deserialize;

use super::{PlannedWake, Population, Wake};
use crate::draw::{Draw, Purpose};
use crate::limits::{
    ACCESS_LOG_EVENTS_MAX, ACCESS_LOG_LINE_BYTES_MAX, HELD_PACKAGES_MAX, PACKAGES_MAX, SCENARIO_DEVICES_MAX,
};
use crate::scenario::Scenario;

/// Between two wakes of one address on two connections lie so many seconds, or they are two devices.
const SAME_DEVICE_AFTER_S: u64 = 1;

/// Why an access log cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum AccessLogError {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A line is not one of an edge's access log.
    #[error("line {line}: {what}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// It is too long.
    #[error("line {line}: it has more than {most} {what}; replay a part of it")]
    TooMany {
        /// Where the bound is passed, counted from 1.
        line: u64,
        /// How many there may be.
        most: usize,
        /// Of what.
        what: &'static str,
    },
    /// Nobody asks for anything in it.
    #[error("it has no request for a timestamp or a blob that was answered")]
    Empty,
}

/// A log as wakes.
#[derive(Debug)]
pub struct Replay {
    /// The wakes, by time.
    pub wakes: Vec<PlannedWake>,
    /// Lines that were no answered request for a timestamp or a blob.
    pub other_lines: u64,
    /// Wishes that were left out: more than a device holds, or than a catalogue may have packages.
    pub wishes_left_out: u64,
}

/// What is read of a line.
#[derive(Deserialize)]
struct Line {
    time_s: u64,
    method: String,
    path: String,
    status: u16,
    client: Option<String>,
}

/// What a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    Timestamp,
    Blob(u32),
}

/// Connections and blobs by number, and who asked for what when.
#[derive(Default)]
struct Requests {
    clients: HashMap<String, u32>,
    blobs: HashMap<String, u32>,
    /// Times that each blob was asked for.
    popularity: Vec<u64>,
    /// Connection, time, what.
    events: Vec<(u32, u64, Asked)>,
    other_lines: u64,
}

/// Reads a log, and makes `scenario` one of so many devices, packages and seconds.
///
/// # Errors
/// A line cannot be understood, or there is too much of something, with the number of the line.
pub fn replay(log: impl BufRead, scenario: &mut Scenario) -> Result<Replay, AccessLogError> {
    let mut read = Requests::default();
    read.lines(log)?;
    let first_s = read.events.iter().map(|(_, time_s, _)| *time_s).min().ok_or(AccessLogError::Empty)?;
    let last_s = read.events.iter().map(|(_, time_s, _)| *time_s).max().unwrap_or(first_s);
    // The most popular blob is package 1.
    let mut by_popularity: Vec<u32> = (0..).zip(&read.popularity).map(|(blob, _)| blob).collect();
    by_popularity.sort_by_key(|blob| (std::cmp::Reverse(read.popularity[*blob as usize]), *blob));
    let mut package_of = vec![0_usize; by_popularity.len()];
    by_popularity.iter().zip(1..).for_each(|(blob, package)| package_of[*blob as usize] = package);
    let packages = by_popularity.len().min(PACKAGES_MAX);
    let mut replay = Replay { wakes: Vec::new(), other_lines: read.other_lines, wishes_left_out: 0 };
    let sessions = sessions(&mut read, &package_of, &mut replay.wishes_left_out);
    let devices = devices(&read, &sessions);
    scenario.devices = devices.iter().max().map_or(1, |last| last + 1).min(SCENARIO_DEVICES_MAX);
    scenario.duration_s = (last_s - first_s + 1) as f64;
    scenario.system.packages = packages;
    scenario.popularity.on_demand = 0;
    let population = Population::of(scenario);
    for ((session, device), index) in sessions.iter().zip(devices).zip(0_u64..) {
        let within = Draw::of(scenario.seed, Purpose::Phase, u64::from(device), index).below(1_000_000);
        let base = scenario.popularity.base.then_some(0);
        let wants: Vec<_> = base.into_iter().chain(session.wants.iter().copied()).collect();
        if wants.is_empty() {
            continue;
        }
        let at_us = (session.at_s - first_s) * 1_000_000 + within;
        replay.wakes.push(PlannedWake {
            wake: Wake { at_us, device, number: 0 },
            link: population.link_of(device),
            wants,
        });
    }
    replay.wakes.sort_by_key(|planned| planned.wake);
    let mut numbers = HashMap::new();
    for planned in &mut replay.wakes {
        let number = numbers.entry(planned.wake.device).or_insert(0);
        planned.wake.number = *number;
        *number += 1;
    }
    Ok(replay)
}

/// One wake, of a connection.
struct Session {
    client: u32,
    at_s: u64,
    wants: Vec<u16>,
}

fn sessions(read: &mut Requests, package_of: &[usize], left_out: &mut u64) -> Vec<Session> {
    // Lines are written when bodies end: a timestamp may come after the blob it led to.
    read.events.sort_unstable();
    let mut sessions: Vec<Session> = Vec::new();
    for (client, at_s, asked) in &read.events {
        let package = match asked {
            Asked::Timestamp => None,
            Asked::Blob(blob) => Some(package_of[*blob as usize]),
        };
        let goes_on = package.is_some() && sessions.last().is_some_and(|last| last.client == *client);
        if !goes_on {
            sessions.push(Session { client: *client, at_s: *at_s, wants: Vec::new() });
        }
        let (Some(session), Some(package)) = (sessions.last_mut(), package) else { continue };
        match u16::try_from(package) {
            Ok(package) if session.wants.contains(&package) => {}
            Ok(package) if usize::from(package) <= PACKAGES_MAX && session.wants.len() < HELD_PACKAGES_MAX => {
                session.wants.push(package);
            }
            _ => *left_out += 1,
        }
    }
    sessions.sort_by_key(|session| (session.at_s, session.client));
    sessions
}

/// The device of each session, from 0: a connection stays with its device, an address has as many as it has connections at a time.
fn devices(read: &Requests, sessions: &[Session]) -> Vec<u32> {
    let mut address_of = vec![""; read.clients.len()];
    for (client, number) in &read.clients {
        // IP:PORT; what is not is an address for itself.
        address_of[*number as usize] = client.rsplit_once(':').map_or(client.as_str(), |(address, _)| address);
    }
    let mut last_of: HashMap<u32, u64> = HashMap::new();
    for session in sessions {
        let last = last_of.entry(session.client).or_default();
        *last = (*last).max(session.at_s);
    }
    let mut known: HashMap<u32, u32> = HashMap::new();
    let mut free: HashMap<&str, BTreeMap<u64, Vec<u32>>> = HashMap::new();
    let mut next = 0;
    let mut devices = Vec::with_capacity(sessions.len());
    for session in sessions {
        let address = address_of[session.client as usize];
        let device = known.get(&session.client).copied().unwrap_or_else(|| {
            let waiting = free.entry(address).or_default();
            let found = waiting.first_entry().filter(|entry| *entry.key() <= session.at_s).and_then(|mut entry| {
                let device = entry.get_mut().pop();
                if entry.get().is_empty() {
                    entry.remove();
                }
                device
            });
            let device = found.unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            // Once this connection has had its last wake, another one of the address may be the same device.
            let from_s = last_of[&session.client] + SAME_DEVICE_AFTER_S;
            waiting.entry(from_s).or_default().push(device);
            known.insert(session.client, device);
            device
        });
        devices.push(device);
    }
    devices
}

impl Requests {
    fn lines(&mut self, mut log: impl BufRead) -> Result<(), AccessLogError> {
        let mut text = String::new();
        for line in 1.. {
            text.clear();
            let wrong = |what: String| AccessLogError::Line { line, what };
            let read = Read::take(&mut log, ACCESS_LOG_LINE_BYTES_MAX).read_line(&mut text);
            let read = read.map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData => wrong("it is not UTF-8".to_owned()),
                _ => AccessLogError::Io(error),
            })?;
            if read == 0 {
                return Ok(());
            }
            if read as u64 == ACCESS_LOG_LINE_BYTES_MAX && !text.ends_with('\n') {
                return Err(wrong(format!("it is longer than {ACCESS_LOG_LINE_BYTES_MAX} bytes")));
            }
            if !text.trim().is_empty() {
                let parsed: Line = serde_json::from_str(&text)
                    .map_err(|error| wrong(format!("it is no line of an edge's access log: {error}")))?;
                self.take(line, parsed)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, line: u64, parsed: Line) -> Result<(), AccessLogError> {
        let asked = match parsed.path.rsplit('/').next() {
            Some("timestamp.json") => Some(Asked::Timestamp),
            Some(name) if is_blob(name) && !parsed.path.contains("/leaves/") => Some(Asked::Blob(self.blob(name))),
            _ => None,
        };
        let Some(asked) = asked.filter(|_| parsed.method == "GET" && matches!(parsed.status, 200 | 206 | 304)) else {
            self.other_lines += 1;
            return Ok(());
        };
        let Some(client) = parsed.client else {
            return Err(AccessLogError::Line { line, what: "it names no `client`".to_owned() });
        };
        let (count, devices) = (self.clients.len() as u32, SCENARIO_DEVICES_MAX);
        let client = *self.clients.entry(client).or_insert(count);
        if client >= devices {
            return Err(AccessLogError::TooMany { line, most: devices as usize, what: "connections" });
        }
        if self.events.len() >= ACCESS_LOG_EVENTS_MAX {
            return Err(AccessLogError::TooMany { line, most: ACCESS_LOG_EVENTS_MAX, what: "requests" });
        }
        if let Asked::Blob(blob) = asked {
            self.popularity[blob as usize] += 1;
        }
        self.events.push((client, parsed.time_s, asked));
        Ok(())
    }

    fn blob(&mut self, name: &str) -> u32 {
        if let Some(known) = self.blobs.get(name) {
            return *known;
        }
        let number = self.popularity.len() as u32;
        self.popularity.push(0);
        self.blobs.insert(name.to_owned(), number);
        number
    }
}

/// A merkle root in hex.
fn is_blob(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario() -> Scenario {
        let text = "name = 'r'\ndevices = 1\nduration_s = 1\n[arrivals]\nkind = 'poll'\ninterval_s = 1\n";
        Scenario::parse(text).unwrap()
    }

    fn line(time_s: u64, client: &str, path: &str) -> String {
        format!(
            "{{\"time_s\":{time_s},\"method\":\"GET\",\"path\":\"{path}\",\"range\":null,\"status\":200,\"bytes\":5,\
             \"complete\":true,\"protocol\":\"h3\",\"tier\":null,\"client\":\"{client}\",\"user_agent\":null}}\n"
        )
    }

    fn blob(letter: char) -> String {
        format!("/r/blobs/1/{}", letter.to_string().repeat(64))
    }

    #[test]
    fn a_log_becomes_wakes_and_wishes() {
        let at = 1_700_000_000;
        let log = [
            // The body of the blob ended first.
            line(at + 2, "10.0.0.1:5000", &blob('a')),
            line(at + 2, "10.0.0.1:5000", "/r/timestamp.json"),
            line(at + 2, "10.0.0.1:5000", &blob('a')),
            line(at, "10.0.0.1:4000", "/r/timestamp.json"),
            line(at + 2, "10.0.0.1:5001", "/r/timestamp.json"),
            line(at + 3, "10.0.0.1:5001", &blob('b')),
            line(at + 3, "10.0.0.1:5001", &blob('a')),
            line(at + 9, "[::1]:70", "/r/1.root.json"),
            line(at + 9, "[::1]:70", "/r/timestamp.json"),
        ]
        .concat();
        let mut scenario = scenario();
        let replay = replay(log.as_bytes(), &mut scenario).unwrap();
        assert_eq!((scenario.devices, scenario.duration_s, scenario.system.packages), (3, 10.0, 2));
        assert_eq!((replay.other_lines, replay.wishes_left_out), (1, 0));
        let mut seen: Vec<_> = replay
            .wakes
            .iter()
            .map(|planned| (planned.wake.at_us / 1_000_000, planned.wake.device, planned.wants.clone()))
            .collect();
        seen.sort();
        // The address came back after its first connection, and twice at once.
        assert_eq!(seen, [(0, 0, vec![0]), (2, 0, vec![0, 1]), (2, 1, vec![0, 1, 2]), (9, 2, vec![0])]);
        assert!(replay.wakes.windows(2).all(|pair| pair[0].wake <= pair[1].wake));
    }

    #[test]
    fn mistakes_have_their_line() {
        let good = line(5, "a:1", "/r/timestamp.json");
        let read = |text: &str| replay(text.as_bytes(), &mut scenario()).unwrap_err().to_string();
        assert!(read(&format!("{good}nonsense\n")).starts_with("line 2: it is no line of an edge's access log"));
        assert!(read(&format!("{good}\n{}", good.replace("\"time_s\":5,", ""))).starts_with("line 3: "));
        assert_eq!(read(&good.replace("\"a:1\"", "null")), "line 1: it names no `client`");
        assert!(read(&format!("{good}{}", "x".repeat(70_000))).starts_with("line 2: it is longer than"));
        assert!(read("").contains("no request") && read(&good.replace("200", "404")).contains("no request"));
    }
}
