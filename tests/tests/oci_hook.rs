//! The OCI hook under the real runtimes, runc and crun, as root and as an ordinary user.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::json;
use slirp_tests::*;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Runtimes and users that can use `createRuntime`.
const RUNTIMES: [(Account, &str); 3] =
    [(Account::Root, "runc"), (Account::Ordinary, "runc"), (Account::Root, "crun")];

macro_rules! oci {
    ($account:expr, $runtime:expr) => {
        match Oci::open($account, $runtime) {
            Ok(oci) => oci,
            Err(missing) => return skip(&missing),
        }
    };
}

fn assert_clean_soon(oci: &Oci) {
    wait_until(Duration::from_secs(10), "nothing is left behind", || oci.is_clean());
}

#[test]
fn container_has_a_network_from_its_start_to_its_end() {
    for (account, runtime) in RUNTIMES {
        let oci = oci!(account, runtime);
        for stage in ["createRuntime", "prestart"] {
            let setup = Setup { stages: vec![stage, "poststop"], ..Setup::default() };
            let id = format!("c-{stage}");
            oci.run(&id, &setup).unwrap();
            let shown = oci.exec(&id, &["ip", "addr", "show", "eth0"]);
            assert!(shown.contains("inet 10.0.2.100/24") && shown.contains("mtu 1500"), "{shown}");
            let routes = oci.exec(&id, &["ip", "route"]);
            assert!(routes.contains("default via 10.0.2.2 dev eth0"), "{routes}");
            oci.exec(&id, &["ping", "-c", "1", "-W", "5", "10.0.2.2"]);
            oci.delete(&id);
            assert!(oci.is_clean(), "{:?} {:?}", oci.networks(), oci.attachments());
        }
    }
}
