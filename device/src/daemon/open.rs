//! `POST /open`: packages stay here, with all they name and their tree of files, until the connection ends. `GET /leases`.

use std::path::PathBuf;

use colibri_common::BlobId;
use colibri_transport::{Response, UnixConnection};

use super::answer::{Lines, Without};
use super::packages::parse_url;
use super::resolve::{described, tell_end};
use super::wire::{Event, LeaseEntry, Open, OpenedPackage, Problem};
use super::{Daemon, Holder};
use crate::cache::Lease;
use crate::limits::{DAEMON_LEASES_OF_USER_MAX, DAEMON_OPEN_MAX};

/// Places for leases of one connection, until this is dropped.
struct Held {
    daemon: Daemon,
    holder: String,
    leases: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut holders = self.daemon.holders();
        if let Some(holder) = holders.get_mut(&self.holder) {
            holder.leases -= self.leases;
            if holder.leases == 0 {
                holders.remove(&self.holder);
            }
        }
    }
}

impl Daemon {
    /// Places for so many leases of a connection.
    fn hold(&self, caller: &UnixConnection, leases: usize) -> Result<Held, Problem> {
        let peer = caller.peer;
        let pid = peer.pid.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"));
        let name = format!("{pid} of user {}, connection {}", peer.uid, caller.id);
        let mut holders = self.holders();
        let of_user: usize =
            holders.values().filter(|holder| holder.peer.uid == peer.uid).map(|holder| holder.leases).sum();
        if of_user + leases > DAEMON_LEASES_OF_USER_MAX && !self.is_owner(peer) {
            return Err(Problem::too_much(format!(
                "user {} can have at most {DAEMON_LEASES_OF_USER_MAX} packages open",
                peer.uid
            )));
        }
        holders.entry(name.clone()).or_insert(Holder { peer, leases: 0 }).leases += leases;
        Ok(Held { daemon: self.clone(), holder: name, leases })
    }

    pub(super) async fn open(&self, wanted: Open, caller: UnixConnection) -> Result<Response, Problem> {
        match wanted.url {
            Some(url) if wanted.packages.is_empty() => self.resolve_open(&url, caller),
            None if !wanted.packages.is_empty() => self.open_packages(&wanted.packages, caller).await,
            _ => Err(Problem::bad_request("give either `packages` or `url`".to_owned())),
        }
    }

    async fn open_packages(&self, packages: &[BlobId], caller: UnixConnection) -> Result<Response, Problem> {
        if packages.len() > DAEMON_OPEN_MAX {
            return Err(Problem::too_much(format!("one request can open at most {DAEMON_OPEN_MAX} packages")));
        }
        let held = self.hold(&caller, packages.len())?;
        let mut opened = Vec::new();
        for package in packages {
            let lease = self.device().lease(*package, &held.holder).await?;
            let path = self.tree_of(&lease).await?;
            opened.push((lease, OpenedPackage { hash: *package, path }));
        }
        let daemon = self.clone();
        Ok(self.lines(|lines| async move {
            let (leases, opened): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
            daemon.until_gone(lines, &caller, opened).await;
            drop((leases, held));
        }))
    }

    fn resolve_open(&self, url: &str, caller: UnixConnection) -> Result<Response, Problem> {
        if !self.is_owner(caller.peer) {
            let uid = caller.peer.uid;
            return Err(Problem::denied(format!("user {uid} may open what is here, by its hash, and not resolve")));
        }
        let url = parse_url(url)?;
        let place = self.operation()?;
        let held = self.hold(&caller, 1)?;
        let mut watch = self.watch(&url);
        let (daemon, observer) = (self.clone(), watch.counts.observer());
        let (asked, holder) = (url.clone(), held.holder.clone());
        let working = self.work(Without::Stops, async move {
            let _place = place;
            let opened = daemon.device().resolve_open(&asked, &holder, observer).await?;
            let path = daemon.tree_of(&opened.lease).await?;
            Ok((opened, path))
        });
        let daemon = self.clone();
        Ok(self.lines(|mut lines| async move {
            let progress = || Some(Event::Progress(watch.progress()));
            let Some(opened) = working.watched(&mut lines, progress).await else { return };
            match opened {
                Ok((opened, path)) => {
                    let resolved = described(&url, &opened.resolved);
                    let package = OpenedPackage { hash: resolved.hash, path };
                    let told = tell_end(&mut lines, &mut watch, Event::Resolved(resolved)).await;
                    if told {
                        daemon.until_gone(lines, &caller, vec![package]).await;
                    }
                    drop((opened.lease, held));
                }
                Err(problem) => {
                    if tell_end(&mut lines, &mut watch, Event::Failed(problem)).await {
                        lines.finish();
                    }
                }
            }
        }))
    }

    async fn tree_of(&self, lease: &Lease) -> Result<PathBuf, Problem> {
        let path = self.device().tree(lease).await?;
        std::path::absolute(&path).map_err(|error| Problem::internal(format!("{}: {error}", path.display())))
    }

    /// Tells what is open, and waits until the connection has ended, or the daemon ends, which is told.
    async fn until_gone(&self, mut lines: Lines, caller: &UnixConnection, opened: Vec<OpenedPackage>) {
        let telling = async {
            for package in opened {
                if lines.send(&Event::Opened(package)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = lines.gone() => {}
                () = self.inner.end.cancelled() => {
                    if lines.send(&Event::Ended).await.is_ok() {
                        lines.finish();
                    }
                }
            }
        };
        tokio::select! {
            () = telling => {}
            () = caller.closed() => {}
        }
    }

    /// Packages that are open, oldest first.
    pub(super) fn leases(&self) -> Vec<LeaseEntry> {
        let holders = self.holders();
        let entry = |info: crate::cache::LeaseInfo| {
            let peer = holders.get(&info.holder).map(|holder| holder.peer);
            LeaseEntry {
                package: info.package,
                pid: peer.and_then(|peer| peer.pid),
                uid: peer.map(|peer| peer.uid),
                holder: info.holder,
                since: info.since,
            }
        };
        self.device().leases().into_iter().map(entry).collect()
    }
}
