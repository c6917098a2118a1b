//! What the processes say of themselves, every moment: resident memory, metrics, blocks on disk.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use colibri_transport::{Body, Client, ClientConfig};
use http::Request;

use crate::nodes::{Node, System};

/// Largest answer of `/metrics`, bytes.
const METRICS_BYTES_MAX: u64 = 4 << 20;

/// One look at one edge.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// Since the start.
    pub at: Duration,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// Memory tier as its metric has it, bytes.
    pub memory_bytes: u64,
    /// Disk tier as its metric has it, bytes.
    pub disk_bytes: u64,
    /// What its folder takes in blocks, bytes.
    pub blocks_bytes: u64,
}

/// All looks.
#[derive(Debug, Default)]
pub struct Samples {
    /// By edge.
    pub of: BTreeMap<&'static str, Vec<Sample>>,
    /// Bodies that the origin sent, bytes, over all its lives.
    pub origin_bytes: u64,
    origin_before: u64,
    client: Option<Client>,
}

impl Samples {
    /// Looks at everything that runs; what does not answer is left out.
    pub async fn take(&mut self, system: &System, at: Duration) {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => {
                let config = ClientConfig { header_timeout: Duration::from_secs(5), ..ClientConfig::default() };
                let Ok(client) = Client::new(config) else { return };
                self.client.insert(client).clone()
            }
        };
        if let Some(metrics) = metrics(&client, &system.origin).await {
            let bytes = sum(&metrics, "colibri_origin_body_bytes_total");
            // A new life counts from zero.
            self.origin_bytes += if bytes < self.origin_before { bytes } else { bytes - self.origin_before };
            self.origin_before = bytes;
        }
        for node in system.caches() {
            let (Some(rss_bytes), Some(metrics)) = (rss_bytes(node), metrics(&client, node).await) else { continue };
            self.of.entry(node.name).or_default().push(Sample {
                at,
                rss_bytes,
                memory_bytes: sum(&metrics, "colibri_edge_live_bytes").max(sum(&metrics, "colibri_edge_memory_bytes")),
                disk_bytes: sum(&metrics, "colibri_edge_disk_bytes"),
                blocks_bytes: blocks_bytes(&node.disk),
            });
        }
    }
}

async fn metrics(client: &Client, node: &Node) -> Option<String> {
    node.pid()?;
    let url = format!("http://127.0.0.1:{}/metrics", node.ports().admin);
    let answer = client.send(Request::get(url).body(Body::empty()).ok()?).await.ok()?;
    let text = answer.into_body().read_all(METRICS_BYTES_MAX).await.ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Sum over all labels.
fn sum(metrics: &str, name: &str) -> u64 {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let is_it = rest.starts_with([' ', '{']);
        rest.rsplit(' ').next().filter(|_| is_it)?.parse::<f64>().ok()
    });
    values.sum::<f64>() as u64
}

fn rss_bytes(node: &Node) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid()?)).ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kilobytes.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// Blocks of all files below `dir`; files may go while this looks.
fn blocks_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let blocks = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => blocks_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    blocks.sum()
}
