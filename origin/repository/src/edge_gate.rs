//! [`EdgeGate`]: a release becomes visible once enough named edges have served all its blobs back, every byte proven here.
//!
//! The first devices then find them near, and an origin that nobody can reach from outside shows before anybody depends on it.
//! Deliberately absent: which edges there are, and going past the gate.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use colibri_common::BlobId;
use colibri_package::delivery::{DeliveryType, Encoding};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::gate::PublishGate;
use crate::limits::{EDGE_GATE_PAUSE_MS, EDGE_GATE_REMEMBERED_MAX};
use crate::recover::{Witness, read};

/// Edges that must have served new blobs.
#[derive(Debug, Clone)]
pub struct EdgeGate {
    edges: Vec<Arc<Edge>>,
    edges_min: usize,
    wait: Duration,
}

#[derive(Debug)]
struct Edge {
    witness: Witness,
    /// Blobs it has served before: it is not asked again.
    served: Mutex<HashSet<BlobId>>,
}

impl EdgeGate {
    /// A gate of these edges, `edges_min` of which must have everything within `wait`.
    pub fn new(edges: Vec<Witness>, edges_min: usize, wait: Duration) -> Self {
        let edge = |witness| Arc::new(Edge { witness, served: Mutex::default() });
        Self { edges: edges.into_iter().map(edge).collect(), edges_min, wait }
    }

    async fn wait_for(&self, blobs: &[BlobId]) -> Result<(), String> {
        let deadline = Instant::now() + self.wait;
        let blobs: Arc<[BlobId]> = blobs.into();
        let mut asking = JoinSet::new();
        for edge in &self.edges {
            let (edge, blobs) = (edge.clone(), blobs.clone());
            asking.spawn(async move { edge.serves(&blobs, deadline).await });
        }
        let (mut done, mut faults) = (0, Vec::new());
        // The set ends those still asking when it is dropped.
        while done < self.edges_min {
            match asking.join_next().await {
                Some(Ok(Ok(()))) => done += 1,
                Some(Ok(Err(fault))) => faults.push(fault),
                Some(Err(error)) => faults.push(error.to_string()),
                None => {
                    let (needed, faults) = (self.edges_min, faults.join("; "));
                    return Err(format!("{done} of {needed} edges have served the new blobs back: {faults}"));
                }
            }
        }
        Ok(())
    }
}

impl Edge {
    async fn serves(&self, blobs: &[BlobId], deadline: Instant) -> Result<(), String> {
        for id in blobs {
            if self.served.lock().unwrap_or_else(PoisonError::into_inner).contains(id) {
                continue;
            }
            let mut last = "it did not answer in time".to_owned();
            let asking = async {
                loop {
                    match read(&self.witness.fetcher, *id, Encoding::Delivery(DeliveryType::Type1), &mut |_| {}).await {
                        Ok(_) => return,
                        Err(error) => last = error.to_string(),
                    }
                    sleep(Duration::from_millis(EDGE_GATE_PAUSE_MS)).await;
                }
            };
            if timeout_at(deadline, asking).await.is_err() {
                return Err(format!("{} has not served blob {id}: {last}", self.witness.name));
            }
            let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
            if served.len() >= EDGE_GATE_REMEMBERED_MAX {
                served.clear();
            }
            served.insert(*id);
        }
        Ok(())
    }
}

impl PublishGate for EdgeGate {
    /// Waits on the calling thread, which must be one of a runtime on which blocking is allowed.
    fn pass(&self, blobs: &[BlobId]) -> Result<(), String> {
        let runtime = Handle::try_current().map_err(|error| format!("edges cannot be asked: {error}"))?;
        runtime.block_on(self.wait_for(blobs))
    }
}
