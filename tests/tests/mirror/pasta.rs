//! Debian's pasta beside us: what both set up is the same.

use std::path::Path;

use slirp_core::mirror::Choice;
use slirp_tests::{PATIENCE, World, is_installed, needs, wait_until};

use crate::{Mirrored, addresses, gateway, json};

#[test]
fn interface_is_the_one_that_pasta_makes() {
    needs!(is_installed("pasta"));
    for script in [
        "",
        "ip route del default; ip route add default via 198.51.100.3",
        "ip -6 addr flush dev h0 scope global; ip -6 route flush default || true",
        "ip addr flush dev h0; ip addr add 192.0.2.9/26 dev h0
         ip route add default via 192.0.2.1",
    ] {
        let seen = |world: &World| {
            let links = json(&world.guest, "link show dev h0");
            let mtu = links.iter().map(|link| link["mtu"].clone()).collect::<Vec<_>>();
            let gateways = ["-4"].map(|family| gateway(&world.guest, family));
            let all = addresses(&world.guest, "h0");
            (mtu, gateways, all.into_iter().filter(|one| !one.contains(':')).collect::<Vec<_>>())
        };
        let world = needs!(World::root());
        world.host.script(script);
        let choice = Choice { mtu: Some(65_520), ..Choice::default() };
        let _ours = Mirrored::open(&world, &choice);
        let ours = seen(&world);

        let world = needs!(World::root());
        world.host.script(script);
        let pid_file = world.folder().join("pid");
        let (file, pid) = (pid_file.display().to_string(), world.guest.pid().to_string());
        let pasta = world.host.spawn(&[
            "pasta",
            "--foreground",
            "--config-net",
            "--runas",
            "0",
            "--pid",
            &file,
            "-t",
            "none",
            "-u",
            "none",
            "-T",
            "none",
            "-U",
            "none",
            &pid,
        ]);
        let is_ready =
            || std::fs::read_to_string(Path::new(&file)).is_ok_and(|pid| !pid.is_empty());
        wait_until(PATIENCE, "pasta is ready", is_ready);
        assert_eq!(ours, seen(&world), "{script}");
        drop(pasta);
    }
}
