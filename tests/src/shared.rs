//! Containers of one shared network, and the process that serves them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::{Value, json};

use crate::cni::{CniFailure, MiniCni};
use crate::namespace::{Account, Namespace};
use crate::world::World;

/// A container with its runtime.
#[derive(Debug)]
pub struct Container<'w> {
    /// Its namespaces.
    pub namespace: Namespace,
    /// Its runtime.
    pub cni: MiniCni<'w>,
    /// What `ADD` said.
    pub result: Value,
}

impl<'w> Container<'w> {
    /// A container with the id `id` of the world's account, on the network that `config` describes
    /// besides `shared`.
    ///
    /// # Errors
    /// What the plugin's error object says.
    pub fn join(world: &'w World, id: &str, config: &Value) -> Result<Self, CniFailure> {
        let namespace = Self::alone(world, world.account());
        Self::join_with(world, namespace, id, config, |cni| cni)
    }

    /// The same with namespaces that are there and a runtime that `change` has changed.
    ///
    /// # Errors
    /// What the plugin's error object says.
    pub fn join_with(
        world: &'w World,
        namespace: Namespace,
        id: &str,
        config: &Value,
        change: impl FnOnce(MiniCni<'w>) -> MiniCni<'w>,
    ) -> Result<Self, CniFailure> {
        let cni = change(Self::runtime(world, &namespace, id, config));
        let result = cni.add()?;
        Ok(Self { namespace, cni, result })
    }

    /// Namespaces without a network yet, in which names are asked for at the usual address.
    pub fn alone(world: &World, account: Account) -> Namespace {
        let namespace = Namespace::container(&world.host, account);
        namespace.script(&format!(
            "ip link set lo up; mount --bind {}/guest-resolv.conf /etc/resolv.conf",
            world.folder().display()
        ));
        namespace
    }

    /// The runtime of such a container.
    pub fn runtime(
        world: &'w World,
        namespace: &Namespace,
        id: &str,
        config: &Value,
    ) -> MiniCni<'w> {
        let mut config = config.clone();
        config["shared"] = json!(true);
        MiniCni::new(world, &config)
            .container(id)
            .netns(&format!("/proc/{}/ns/net", namespace.pid()))
    }

    /// Its IPv4 address.
    ///
    /// # Panics
    /// When it has none.
    pub fn address(&self) -> Ipv4Addr {
        self.nth_address(0).parse().expect("the first address is IPv4")
    }

    /// Its IPv6 address.
    ///
    /// # Panics
    /// When it has none.
    pub fn address6(&self) -> Ipv6Addr {
        self.nth_address(1).parse().expect("the second address is IPv6")
    }

    fn nth_address(&self, index: usize) -> &str {
        let text = self.result["ips"][index]["address"].as_str().unwrap_or_default();
        text.split('/').next().unwrap_or_default()
    }

    /// Its IPv4 address with a port.
    pub fn at(&self, port: u16) -> SocketAddr {
        (IpAddr::V4(self.address()), port).into()
    }

    /// Its Ethernet address.
    pub fn mac(&self) -> &str {
        self.result["interfaces"][0]["mac"].as_str().unwrap_or_default()
    }
}

/// Processes of shared networks whose files are in this world's folder.
pub fn network_processes(world: &World) -> Vec<u32> {
    let folder = world.folder().display().to_string();
    processes(|words| {
        words.get(1).is_some_and(|word| word == "run-network")
            && words.iter().any(|word| word.starts_with(&folder))
    })
}

/// Keepers of attachments whose files are in this world's folder.
pub fn keepers(world: &World) -> Vec<u32> {
    let folder = world.folder().display().to_string();
    processes(|words| {
        words.get(1).is_some_and(|word| word == "keep-attachment")
            && words.iter().any(|word| word.starts_with(&folder))
    })
}

fn processes(is_wanted: impl Fn(&[String]) -> bool) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&command).into_owned();
        let words: Vec<String> = text.split('\0').map(str::to_owned).collect();
        // What stays outside of a sandbox has the command line of what lives in there.
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        is_wanted(&words) && name != "slirp-outside\n"
    })
    .collect()
}
