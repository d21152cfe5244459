//! Our stack under an egress policy of the size that is promised to cost next to nothing.
//!
//! Owns the rules, and the names that the guest has learned before a measurement begins.

use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::arena::GATEWAY;
use crate::load::names::{self, ZONE};
use crate::worker::{PATIENCE, Reply, Side, Worker};

/// Rules: half of them about names, half about addresses.
pub(crate) const RULES: u32 = 1_000;
/// Names that the guest has learned, with an address each.
pub(crate) const NAMES: u32 = 10_000;
/// The virtual name server of every guest.
const NAME_SERVER: &str = "10.0.2.3:53";

/// A name server on the host, while the stack runs.
pub(crate) struct Names {
    _server: Worker,
    port: u64,
}

impl Names {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let (server, ready): (_, Reply) = Worker::start(Side::Host, names::SERVER, &[])?;
        Ok(Self { _server: server, port: ready.number("port")? })
    }

    /// The arguments of a stack under the policy, whose file is written into `folder`.
    pub(crate) fn args(&self, folder: &Path) -> anyhow::Result<[String; 2]> {
        let path = folder.join("policy");
        fs::write(&path, rules()).with_context(|| format!("cannot write {}", path.display()))?;
        Ok([format!("--policy={}", path.display()), format!("--dns=127.0.0.1:{}", self.port)])
    }

    /// Has the guest of `holder` learn all names.
    pub(crate) fn teach(holder: u32) -> anyhow::Result<()> {
        let server = [NAME_SERVER.to_owned()];
        let (mut client, _) = Worker::start(Side::Guest(holder), names::CLIENT, &server)?;
        client.ask(&format!("learn {NAMES}"), PATIENCE)?;
        Ok(())
    }
}

/// What the guest needs, and rules that are about something else.
fn rules() -> String {
    let mut rules = format!("# {GATEWAY} and what the measurements use\nallow host-loopback\n");
    rules.push_str(&format!("allow *.{ZONE}\n"));
    for number in 0..(RULES - 2) / 2 {
        let (high, low) = (number / 256, number % 256);
        rules.push_str(&format!("allow host{number}.example.org:443\n"));
        rules.push_str(&format!("deny 198.51.{high}.{low}\n"));
    }
    rules
}
