//! What an operator watches, steers and limits containers by.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use slirp_tests::*;

fn limited(world: &World, bandwidth: Value) -> MiniCni<'_> {
    let config = json!({ "capabilities": { "bandwidth": true } });
    MiniCni::new(world, &config).capability("bandwidth", bandwidth)
}

#[test]
fn bandwidth_of_every_caller_is_recorded() {
    let world = needs!(World::ordinary());
    let both = json!({
        "in": { "bitsPerSecond": 1_000_000, "burst": 100_000 },
        "out": { "bitsPerSecond": 2_000_000, "burst": 268_435_455 },
    });
    for (bandwidth, rates) in [
        // containerd's go-cni: a struct without tags.
        (
            json!({
                "IngressRate": 1_000_000, "IngressBurst": 800_000,
                "EgressRate": 2_000_000, "EgressBurst": i32::MAX,
            }),
            both.clone(),
        ),
        // Kubernetes through CRI-O: the specification's names, and the largest burst.
        (
            json!({
                "ingressRate": 1_000_000, "ingressBurst": 800_000,
                "egressRate": 2_000_000, "egressBurst": i32::MAX,
            }),
            both.clone(),
        ),
        (
            json!({
                "ingressrate": "1000000", "ingressburst": 8e5,
                "egressrate": 2e6, "egressburst": i32::MAX,
            }),
            both,
        ),
        (
            json!({ "ingressRate": 0, "ingressBurst": 0, "egressRate": 8, "egressBurst": 8 }),
            json!({ "in": null, "out": { "bitsPerSecond": 8, "burst": 1 } }),
        ),
        (json!({ "IngressRate": 0, "EgressRate": 0 }), json!({ "in": null, "out": null })),
    ] {
        let cni = limited(&world, bandwidth);
        cni.add().unwrap();
        assert_eq!(cni.attachments()[0]["rates"], rates);
        cni.check().unwrap();
        cni.status().unwrap();
        cni.del().unwrap();
    }
}

#[test]
fn bandwidth_that_cannot_be_kept_is_refused() {
    let world = needs!(World::ordinary());
    for (bandwidth, code, message) in [
        (
            json!({ "ingressRate": 1_000_000 }),
            7,
            "ingressRate: if rate is set, burst must also be set",
        ),
        (json!({ "EgressBurst": 8 }), 7, "egressBurst: if burst is set, rate must also be set"),
        (json!({ "egressRate": "10M" }), 7, "egressRate: \"10M\" is not a number of bits"),
        (
            json!({ "shapedSubnets": ["10.0.0.0/8"] }),
            2,
            "shapedSubnets is not supported (its value is [\"10.0.0.0/8\"])",
        ),
    ] {
        let cni = limited(&world, bandwidth);
        let failure = cni.add().unwrap_err();
        assert_eq!((failure.code, failure.message), (code, format!("add slirp eth0: {message}")));
        assert!(!world.guest.exec(&["ip", "link", "show", "eth0"]).status.success(), "{message}");
        assert!(cni.attachments().is_empty());
    }
    let other = binary_under_test().to_str().unwrap();
    let cni = limited(&world, json!({ "ingressRate": 8, "ingressBurst": 8 }));
    let failure = cni.variable("SLIRP4NETNS", other).add().unwrap_err();
    assert_eq!((failure.code, failure.details), (2, String::new()));
    assert_eq!(failure.message, "add slirp eth0: bandwidth is not supported with SLIRP4NETNS");
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn each_container_has_its_log_and_its_sockets() {
    for account in [Account::Root, Account::Ordinary] {
        let world = needs!(World::of(account));
        let folder = world.folder();
        let path = |name: &str| folder.join(name).display().to_string();
        let config = json!({
            "policy": ["allow any"],
            "auditLog": path("log"), "audit": "all",
            "controlSocket": path("{containerID}-{ifname}.control"),
            "metrics": format!("unix:{}", path("{containerID}.metrics")),
        });
        let first = MiniCni::new(&world, &config);
        first.add().unwrap();
        let other_guest = Container::alone(&world, account);
        let netns = format!("/proc/{}/ns/net", other_guest.pid());
        let second = MiniCni::new(&world, &config).container("c2").netns(&netns);
        second.add().unwrap();
        let listed = &first.attachments();
        assert_eq!(listed.len(), 2, "{listed:?}");
        for (id, cni) in [("c1", &first), ("c2", &second)] {
            let [control, metrics] =
                [format!("{id}-eth0.control"), format!("{id}.metrics")].map(|n| folder.join(n));
            let of_it = listed.iter().find(|entry| entry["containerID"] == id).unwrap();
            assert_eq!(of_it["controlSocket"], control.display().to_string());
            assert_eq!(of_it["metrics"], format!("unix:{}", metrics.display()));
            for file in [&control, &metrics, &folder.join("log")] {
                assert_eq!(mode(file), 0o600, "{}", file.display());
            }
            cni.check().unwrap();
            cni.del().unwrap();
            assert!(!control.exists() && !metrics.exists(), "{id}");
        }
        assert!(folder.join("log").exists());
    }
}

#[test]
fn what_cannot_be_opened_gives_no_network() {
    let world = needs!(World::ordinary());
    let missing = "/no/such/folder/file";
    let in_metrics = format!("unix:{missing}");
    for (config, start) in [
        (json!({ "auditLog": missing }), "auditLog: /no/such/folder/file: "),
        (json!({ "controlSocket": missing }), "controlSocket: /no/such/folder/file: "),
        (json!({ "metrics": in_metrics }), "metrics: unix:/no/such/folder/file: "),
    ] {
        let cni = MiniCni::new(&world, &config);
        let failure = cni.add().unwrap_err();
        let message = failure.message.strip_prefix("add slirp eth0: ").unwrap();
        assert!(message.starts_with(start), "{message}");
        assert!(!world.guest.exec(&["ip", "link", "show", "eth0"]).status.success(), "{message}");
        assert!(cni.attachments().is_empty());
    }
}

#[test]
fn members_of_a_shared_network_have_one_socket_and_rates_of_their_own() {
    let world = needs!(World::ordinary());
    let control = world.folder().join("control").display().to_string();
    let with = |more: Value| {
        let mut config = json!({ "controlSocket": control });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    let slow = json!({ "bandwidth": { "egressRate": 8000, "egressBurst": 8000 } });
    let first = Container::join(&world, "c1", &with(json!({}))).unwrap();
    let second = Container::join(&world, "c2", &with(slow)).unwrap();
    assert_eq!(network_processes(&world).len(), 1, "one process serves both");
    let failure = Container::join(&world, "c3", &json!({})).map(drop).unwrap_err();
    assert_eq!(failure.code, 2, "{failure:?}");
    let told = format!("controlSocket is {control}, not none");
    assert!(failure.message.ends_with(&told), "{failure:?}");
    let placeholder = with(json!({ "auditLog": "/log/{containerID}" }));
    let failure = Container::join(&world, "c3", &placeholder).map(drop).unwrap_err();
    assert_eq!(failure.code, 7, "{failure:?}");
    assert_eq!(mode(Path::new(&control)), 0o600);
    first.cni.del().unwrap();
    assert!(Path::new(&control).exists(), "the network is still there");
    second.cni.del().unwrap();
    assert!(!Path::new(&control).exists());
}
