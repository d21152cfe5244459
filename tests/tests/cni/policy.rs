//! Containers under an egress policy: each goes where its own policy says, and nothing else of it
//! arrives outside.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use serde_json::json;
use slirp_tests::*;

const PORT: u16 = 8080;

/// A server of the remote that notes at which of its addresses somebody has arrived.
struct Outside {
    _servers: Vec<TcpServer>,
    arrived: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Outside {
    fn start(world: &World) -> Self {
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let serve = |address: IpAddr| {
            let arrived = Arc::clone(&arrived);
            TcpServer::start(&world.remote, (address, PORT).into(), move |stream| {
                arrived.lock().unwrap().push(stream.local_addr().unwrap());
                // Ends when the client does.
                let _ = std::io::Read::read(&mut &stream, &mut [0]);
            })
        };
        Self { _servers: [REMOTE, REMOTE_2, FAR].map(serve).into(), arrived }
    }

    /// Tries all addresses from `guest`. Those in `open`, in order, are reached. For others it gets
    /// `EHOSTUNREACH`, and nothing arrives there.
    fn assert_open(&self, guest: &Namespace, open: &[IpAddr]) {
        self.arrived.lock().unwrap().clear();
        for address in [REMOTE, REMOTE_2, FAR] {
            match connect(guest, (address, PORT).into()) {
                Ok(_) => assert!(open.contains(&address), "{address} is closed"),
                Err(failure) => {
                    assert!(!open.contains(&address), "{address} is open: {failure:?}");
                    assert_eq!(failure.errno, Errno::EHOSTUNREACH, "{address}");
                }
            }
        }
        wait_until(IO_LIMIT, "the connections arrive", || {
            self.arrived.lock().unwrap().len() >= open.len()
        });
        let mut arrived: Vec<IpAddr> =
            self.arrived.lock().unwrap().iter().map(SocketAddr::ip).collect();
        arrived.sort_unstable();
        assert_eq!(arrived, open);
    }
}

#[test]
fn policies_of_key_file_and_environment_add_up() {
    for account in [Account::Root, Account::Ordinary] {
        let world = needs!(World::of(account));
        let outside = Outside::start(&world);
        let [of_key, of_variable] = ["key", "variable"].map(|name| world.folder().join(name));
        std::fs::write(&of_key, format!("# one\nallow {REMOTE_2}\n")).unwrap();
        std::fs::write(&of_variable, format!("allow {FAR}\ndeny {REMOTE_2}:{PORT}\n")).unwrap();
        let config = json!({ "POLICY": [format!("allow {REMOTE}:{PORT}")], "policyfile": of_key });
        let cni = MiniCni::new(&world, &config);
        cni.add().unwrap();
        outside.assert_open(&world.guest, &[REMOTE, REMOTE_2]);
        cni.check().unwrap();
        cni.status().unwrap();
        cni.del().unwrap();
        let cni = MiniCni::new(&world, &config)
            .variable("SLIRP_POLICY", &of_variable.display().to_string());
        cni.add().unwrap();
        outside.assert_open(&world.guest, &[REMOTE, FAR]);
        // A policy is read once.
        std::fs::remove_file(&of_key).unwrap();
        cni.check().unwrap();
        cni.del().unwrap();
    }
}

#[test]
fn empty_policy_denies_all_and_without_one_all_is_open() {
    let world = needs!(World::ordinary());
    let outside = Outside::start(&world);
    for (config, open) in [
        (json!({ "policy": [] }), &[][..]),
        (json!({ "policy": "" }), &[]),
        (json!({ "policy": "allow any; deny 198.51.100.0/24" }), &[FAR]),
        (json!({}), &[REMOTE, REMOTE_2, FAR]),
    ] {
        let cni = MiniCni::new(&world, &config);
        cni.add().unwrap();
        outside.assert_open(&world.guest, open);
        cni.del().unwrap();
    }
}

#[test]
fn container_whose_policy_is_not_understood_gets_no_network() {
    let world = needs!(World::ordinary());
    let plain = |config| MiniCni::new(&world, &config);
    for (cni, code, message) in [
        (
            plain(json!({ "policy": ["allow a.example", "allow a..example"] })),
            7,
            "policy[1]: column 7: a label is empty",
        ),
        (plain(json!({ "polcy": [] })), 7, "polcy: unknown key; policy is meant?"),
        (plain(json!({ "auditlog": "a" })), 7, "auditLog: \"a\" is not an absolute path"),
        (plain(json!({ "audit_log": "/a" })), 7, "audit_log: unknown key; auditLog is meant?"),
        (plain(json!({})).variable("SLIRP_POLICY", ""), 7, "SLIRP_POLICY is empty"),
        (
            plain(json!({})).variable("SLIRP_POLICY", "/no/such/file"),
            7,
            "cannot read the policy /no/such/file: No such file or directory (os error 2)",
        ),
        (
            plain(json!({ "policy": [] }))
                .variable("SLIRP4NETNS", binary_under_test().to_str().unwrap()),
            2,
            "an egress policy is not supported with SLIRP4NETNS",
        ),
    ] {
        let failure = cni.add().unwrap_err();
        assert_eq!((failure.code, failure.message), (code, format!("add slirp eth0: {message}")));
        assert!(!world.guest.exec(&["ip", "link", "show", "eth0"]).status.success(), "{message}");
        assert!(cni.attachments().is_empty());
    }
}

#[test]
fn each_member_of_a_shared_network_has_its_own_policy() {
    let world = needs!(World::ordinary());
    let outside = Outside::start(&world);
    let join = |id: &str, policy: serde_json::Value| Container::join(&world, id, &policy).unwrap();
    // The first one's policy is not the network's.
    let one = join("c1", json!({ "policy": [format!("allow {REMOTE}")] }));
    let other = join("c2", json!({ "policy": [format!("allow {REMOTE_2}"), "allow dns:any"] }));
    let closed = join("c3", json!({ "policy": [] }));
    let free = join("c4", json!({}));
    assert_eq!(network_processes(&world).len(), 1, "one process serves all");
    outside.assert_open(&one.namespace, &[REMOTE]);
    outside.assert_open(&other.namespace, &[REMOTE_2]);
    outside.assert_open(&closed.namespace, &[]);
    outside.assert_open(&free.namespace, &[REMOTE, REMOTE_2, FAR]);
    // Members reach each other, which is no egress.
    let server = TcpServer::echo(&closed.namespace, closed.at(PORT));
    let stream = connect(&one.namespace, server.address()).expect("a member is reached");
    send_exact(&stream, 1, 1000).unwrap();
    receive_exact(&stream, 1, 1000).unwrap();
    // An address's next container has nothing of the policy of the one before.
    let address = closed.address();
    closed.cni.del().unwrap();
    let next = join("c5", json!({}));
    assert_eq!(next.address(), address);
    outside.assert_open(&next.namespace, &[REMOTE, REMOTE_2, FAR]);
}
