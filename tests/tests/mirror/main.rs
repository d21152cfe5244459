//! Guests that have the addresses and routes of their host: the mirror in the kernel's own words.
//!
//! What `ip -j` shows of the guest's interface is compared with what it shows of the host's, for
//! hosts of many makes. The library opens the devices; a thread in the world's host namespace plays
//! the program.

mod changes;
mod hosts;
mod pasta;

use serde_json::Value;
use slirp_core::link::Tap;
use slirp_core::mirror::{Choice, Guest, Template};
use slirp_core::netns::{NamespaceTarget, Refusal, Setup, open_tap_with};
use slirp_tests::{Namespace, World};

/// A guest on its host's network.
struct Mirrored {
    guest: Guest,
    _tap: Tap,
    refusals: Vec<Refusal>,
}

impl Mirrored {
    fn open(world: &World, choice: &Choice) -> Self {
        let template = world.host.enter(|| Template::read(None, None)).expect("the host is read");
        Self::of(world, Guest::new(&template, choice))
    }

    fn of(world: &World, guest: Guest) -> Self {
        let (tap, refusals) = open(world, &guest.interface, guest.setup.clone());
        Self { guest, _tap: tap, refusals }
    }

    fn refused(&self) -> Vec<String> {
        self.refusals.iter().map(ToString::to_string).collect()
    }
}

fn open(world: &World, name: &str, setup: Setup) -> (Tap, Vec<Refusal>) {
    let pid = i32::try_from(world.guest.pid()).expect("process ids fit");
    let target = NamespaceTarget::of_pid(pid).expect("the guest is there");
    open_tap_with(&target, name, setup).expect("the device opens")
}

fn json(namespace: &Namespace, command: &str) -> Vec<Value> {
    let text = namespace.script(&format!("ip -j {command}"));
    let parsed = if text.trim().is_empty() { Ok(Vec::new()) } else { serde_json::from_str(&text) };
    parsed.unwrap_or_else(|error| panic!("`ip -j {command}`: {error}: {text}"))
}

/// The addresses of an interface that others may use: local, peer, prefix length.
fn addresses(namespace: &Namespace, interface: &str) -> Vec<String> {
    let shown = json(namespace, &format!("addr show dev {interface}"));
    let list = shown.iter().find_map(|entry| entry["addr_info"].as_array());
    list.expect("the interface is shown")
        .iter()
        .filter(|address| address["scope"] != "link" && address["deprecated"] != true)
        .map(|address| {
            let text = |name: &str| address[name].as_str().unwrap_or_default();
            let line = format!("{} {} {}", text("local"), address["prefixlen"], text("address"));
            line.trim_end().to_owned()
        })
        .collect()
}

/// The routes of the main table through an interface, without their preferred sources, lifetimes
/// and the state of the interface.
fn routes(namespace: &Namespace, interface: &str) -> Vec<Value> {
    let mut routes = Vec::new();
    for family in ["-4", "-6"] {
        let shown = json(namespace, &format!("{family} -d route show table main"));
        routes.extend(shown.into_iter().filter_map(|mut route| {
            let hops = route["nexthops"].as_array().cloned().unwrap_or_default();
            let is_on = |hop: &Value| hop["dev"] == interface;
            let is_its = if hops.is_empty() { is_on(&route) } else { hops.iter().all(is_on) };
            let fields = route.as_object_mut()?;
            for volatile in ["prefsrc", "expires", "flags", "nhid", "nh_info"] {
                fields.remove(volatile);
            }
            is_its.then_some(route)
        }));
    }
    routes.sort_by_key(ToString::to_string);
    routes
}

/// The default gateway as the guest's kernel has it.
fn gateway(namespace: &Namespace, family: &str) -> Option<String> {
    let shown = json(namespace, &format!("{family} route show default"));
    shown.first().and_then(|route| route["gateway"].as_str().map(ToOwned::to_owned))
}
